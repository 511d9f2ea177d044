"""The agent that sits beside a storage server and carries out, within its owner's ceiling, what the hub asks."""
