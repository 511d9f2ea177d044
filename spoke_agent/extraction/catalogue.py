"""Which extractors there are, as asked of a process that may import them (``listing``)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from spoke_agent.extraction.confinement import environment

_PROGRAM: Final = "spoke_agent.extraction.listing"
_SECONDS: Final = 20
_TRIES: Final = 10
"""Extractors that hang or crash, until the rest of them is given up."""
_MOST: Final = 64
"""Extractors."""

_Word = Annotated[str, msgspec.Meta(max_length=200)]


class Known(msgspec.Struct, frozen=True, tag="known"):
    """One extractor, or why it is none."""

    name: _Word
    target: _Word = ""
    version: int = 0
    what: _Word = ""
    endings: Annotated[tuple[_Word, ...], msgspec.Meta(max_length=500)] = ()
    missing: Annotated[tuple[_Word, ...], msgspec.Meta(max_length=50)] = ()
    """Modules that are not installed."""
    broken: _Word = ""
    """Why it cannot be used: a sentence."""


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """What the process says before it imports an extractor."""

    name: _Word


_LINE = msgspec.json.Decoder(Known | Loading)


def known(memory: int, *, seconds: float = _SECONDS) -> tuple[Known, ...]:
    """Ask a process, and again without an extractor that it did not survive. Blocks: a fraction of a second as a rule.

    ``memory`` is bytes of address space, ``seconds`` is for each try.
    """
    broken: dict[str, Known] = {}
    found: list[Known] = []
    for _ in range(_TRIES):
        found, guilty = _ask(memory, broken, seconds)
        if guilty is None:
            break
        broken[guilty.name] = guilty
    return (*found, *broken.values())


def _ask(memory: int, without: Iterable[str], seconds: float) -> tuple[list[Known], Known | None]:
    """Return what a process found, and which extractor it did not survive."""
    said, ended = _run([sys.executable, "-P", "-m", _PROGRAM, str(memory), *without], seconds)
    found: list[Known] = []
    loading: str | None = None
    for line in said.splitlines():
        try:
            one = _LINE.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if isinstance(one, Loading):
            loading = one.name
        else:
            found.append(one)
            loading = None
    return found[:_MOST], None if loading is None else Known(loading, broken=f"Importing it {ended}.")


def _run(command: list[str], seconds: float) -> tuple[bytes, str]:
    """Return what a program said, and how it ended, for the case that it did not say everything."""
    with subprocess.Popen(  # noqa: S603 - our own program
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=seconds)[0], "ended the process that did"
        except subprocess.TimeoutExpired:
            # Its group: what it started goes with it. It is not waited for yet, so the number is its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return process.communicate()[0], f"takes longer than {seconds:g} seconds"
