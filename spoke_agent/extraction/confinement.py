"""What a process gives up before it reads what others wrote: memory, files, priority, the network where the system lets it.

Runs first thing in a worker, when it has one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Mapping
from typing import Final

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_NICE: Final = 10
_OPEN_FILES: Final = 128

ENVIRONMENT: Final[Mapping[str, str]] = {
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    # One file at a time: threads of number libraries would only take address space.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""All that a worker's environment holds: the agent's own may hold keys."""


def environment() -> dict[str, str]:
    """Return the environment of a worker: what is importable here is importable there."""
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def confine(memory: int) -> None:
    """Set the limits of this process. ``memory`` is bytes of address space."""
    os.nice(_NICE)
    _unplug()
    for limit, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),  # no file is written
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901 - a limit only ever falls
        # A system that knows no such limit (macOS: address space) leaves it to the others.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, most))


def _unplug() -> None:
    """Leave the network, where Linux lets this user: containers often do not, and then the worker merely has no use for it."""
    if sys.platform != "linux":
        return
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(_CLONE_NEWNET):
        unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
