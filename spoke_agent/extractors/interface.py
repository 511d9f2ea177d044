"""What an extractor is. To add one: publish a package whose entry point in the group ``wio.extractors`` names such a class."""

from __future__ import annotations

import enum
from typing import Protocol

from protocol.fields import Fields
from spoke_agent.extractors.source import Source


class Wanted(enum.StrEnum):
    """How much the root's owner lets the hub know."""

    METADATA = "metadata"
    CONTENT = "content"
    """Words of the text too."""


class Unreadable(Exception):
    """The file cannot be read. ``str`` is a whole sentence for people, without anything that stands in the file."""


class Extractor(Protocol):
    """Reads files of one kind. Made without arguments, once per worker process; its module imports nothing heavy.

    Whatever it raises costs the file at hand and is told as that file's problem; only the text of Unreadable is shown.
    """

    name: str
    """Unique among extractors."""
    version: int
    """One more when the same file gives other fields than before: then files are read again."""
    what: str
    """As in a sentence: ``an image``."""
    endings: tuple[str, ...]
    """Of names, in lower case with the dot: files named otherwise are not opened. The empty one stands for names without."""
    needs: tuple[str, ...]
    """Modules that have to be installed; without them the extractor is left out. Imported before its first file."""

    def fits(self, key: str, head: bytes) -> bool:
        """Say whether a file is of this kind, from its key and its first bytes. Asked of files with other endings too."""
        ...

    def extract(self, source: Source, wanted: Wanted) -> Fields:
        """Read what is wanted; ``protocol.fields.fitted`` makes fields of any values. Raises Unreadable."""
        ...


def ending(key: str) -> str:
    """Return what a key ends in, in lower case with the dot: ``.jpg``, ``.nii.gz``; empty for a name without.

    Digits alone are no ending: DICOM files are often named by a number with dots in it.
    """
    name = key.rpartition("/")[2].lower()
    stem, dot, last = name.rpartition(".")
    if not dot or not stem or not last or last.isdigit() or len(last) > _LONGEST:
        return ""
    if last in _PACKED:
        inner = stem.rpartition(".")
        if inner[1] and inner[0] and len(inner[2]) <= _LONGEST:
            return f".{inner[2]}.{last}"
    return f".{last}"


_LONGEST = 12
_PACKED = ("gz",)
