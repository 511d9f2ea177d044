"""Stands between the agent and the gateway, as a process of its own: no gateway outlives its agent for longer than it may.

Run as a program, with nothing but the standard library: ``python -I -S keeper.py``. It reads one line of JSON from standard
input, starts the gateway, and then waits: for the gateway to end, for SIGTERM, or for the end of standard input, which comes
when the agent is gone, however it went. Then the gateway has ``grace_s`` seconds left. A gateway whose keeper is killed is
killed by the kernel.

It holds a lock for as long as the gateway lives, and the gateway inherits it: who gets the lock knows that neither is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
STOP_S = 5.0
FOLDER = "{folder}"
"""Stands in the command for the gateway's own folder, as short as the path of a Unix socket has to be (107 characters)."""
TAKEN = 75
"""The exit code where another keeper has the lock."""


def main() -> int:
    """Keep one gateway; return its exit code."""
    wake, waker = os.pipe()
    for end in (wake, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    ended: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent, which then lets go
    signal.signal(signal.SIGCHLD, lambda *_: None)
    order = json.loads(_line())
    held = os.open(order["lock"], os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return TAKEN
    folder = os.open(order["folder"], os.O_RDONLY | os.O_DIRECTORY)
    with open(order["log"], "ab") as log:  # noqa: PTH123 - pathlib alone takes longer than all of this
        child = subprocess.Popen(  # noqa: S603 - the gateway the agent names
            [word.replace(FOLDER, f"/proc/self/fd/{folder}") for word in order["command"]],
            env=order["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(held, folder),
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - there are no other threads here
            umask=order["umask"],
        )
    os.ftruncate(held, 0)
    os.pwrite(held, f"{os.getpid()} {child.pid}\n".encode(), 0)
    deadline: float | None = None
    while child.poll() is None and not ended:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        ready, _, _ = select.select([wake] if deadline is not None else [wake, 0], [], [], left)
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 512)
        if 0 in ready and not os.read(0, 512):
            deadline = time.monotonic() + order["grace_s"]
    return _end(child)


def _line() -> bytes:
    """Read a line from standard input, and nothing after it."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            sys.exit(0)
        line += part
    return line


def _end(child: subprocess.Popen[bytes]) -> int:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait() & 0xFF


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
