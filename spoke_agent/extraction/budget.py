"""What reading one file may cost."""

from __future__ import annotations

import msgspec

MIB = 1024 * 1024


class Budget(msgspec.Struct, frozen=True):
    """For each file. What goes beyond costs the file its fields, never the agent its work."""

    seconds: float = 20
    """Of the worker's own time: waiting for the storage server does not count."""
    bytes: int = 64 * MIB
    """Read from the file, the first bytes included."""
    reads: int = 4096
    """Ranges of the file asked for."""
    memory: int = 1536 * MIB
    """Address space of the worker process, its libraries included."""
