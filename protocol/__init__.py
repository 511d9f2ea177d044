"""The contract between hub, agent and client.

No input or output, no clock, no randomness of its own: values in, values out. Everything here may be imported by every
other package; nothing here imports any of them. Needs only the standard library, msgspec and cryptography.
"""
