"""Copies of ``wio mc`` that last longer than a key: what may be run again with a new one, and as what. Decisions only.

mc cannot change keys while it runs. When a copy ends because its key did, the same copy goes on in a new run, if that
provably comes to the same:

- ``mirror`` looks at what is there already, so running it again is what it is for;
- ``mv --recursive`` removes each source when it is copied: run again, it takes what is left;
- ``cp --recursive`` copies everything anew each time, so it would never end. It goes on as ``mirror``, which then copies
  what is not there yet, but only where the two mean the same: one source that is a folder with its final slash, options
  that both have and that do not depend on the time, and a target that was empty when the copy began. What lies there then
  is what this copy wrote, whole: S3 shows no halves, and mc gives a local file its name when it is complete.

What nobody else may do meanwhile for that: write into the target, or change the sources of a ``cp`` under the same size.
One file that takes longer than a key's life cannot be copied at all.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import Final

from wio.mc import Line, Refusal, Run

OVER_S: Final = 2
"""So close to its end by this machine's clock, a refused key has ended."""
LONG_S: Final = 60
"""A key that was refused after having worked for so long has ended, whatever this machine's clock says."""
MOST: Final = 60
"""New keys for one copy: a month of keys of twelve hours."""

_SAME: Final = frozenset(
    """a attr checksum custom-header debug disable-multipart disable-pager dp enc-c enc-kms enc-s3 H insecure json
    limit-download limit-upload no-color preserve q quiet r recursive resolve sc storage-class C config-dir""".split()  # noqa: SIM905  - as a list it takes 30 lines
)
"""Options of ``cp`` that ``mirror`` has, too, and with which the two do the same."""
_NOT_ALL: Final = frozenset(
    """dry-run watch w active-active exclude exclude-bucket exclude-storageclass older-than newer-than help h""".split()  # noqa: SIM905  - as above
)
"""Options of ``mirror`` with which it leaves out something on purpose, or does not end."""
_RECURSIVE: Final = frozenset({"r", "recursive"})


class Again(enum.Enum):
    """How a copy goes on with a new key."""

    NOT = enum.auto()
    SAME = enum.auto()
    AS_MIRROR = enum.auto()
    """As ``mirror``, where its target was empty when it began."""


def again(line: Line, run: Run) -> Again:
    """Say how a run that was cut off by the end of its key may go on."""
    names = {_name(option) for option in line.options if option.startswith("-")}
    if "dry-run" in names or not line.lasting or not run.expires:
        return Again.NOT
    if line.command in {"mirror", "mv"}:
        return Again.SAME
    words = run.arguments[1 + len(line.options) :]
    one_folder = len(words) == 2 and words[0].endswith("/")  # noqa: PLR2004  - a source and the target
    return Again.AS_MIRROR if one_folder and names <= _SAME else Again.NOT


def as_mirror(line: Line, run: Run) -> Run:
    """Return the run of ``mirror`` that does what is left of a run of ``cp --recursive``."""
    options = [option for option in line.options if not option.startswith("-") or _name(option) not in _RECURSIVE]
    return replace(run, arguments=("mirror", *options, *run.arguments[1 + len(line.options) :]))


def comparable(line: Line) -> bool:
    """Say whether, after a mirror, everything that is in the source has to be at the target."""
    return not {_name(option) for option in line.options if option.startswith("-")} & _NOT_ALL


def ended(run: Run, refused: Refusal, *, began: float, now: float) -> bool:
    """Say whether a run ended because its key did: times in Unix seconds."""
    if refused is Refusal.NONE:
        return False
    return run.expires - now <= OVER_S or (refused is Refusal.SURE and now - began >= LONG_S)


def _name(option: str) -> str:
    return option.lstrip("-").partition("=")[0]
