"""Names cut into words: one rule for the index and for the query, so that both agree.

A word ends at everything that is neither letter nor digit, where letters meet digits, and where a small letter meets a
capital: ``IMG_2034-rawData.nii`` holds img, 2034, raw, data, nii. Case and Unicode composition do not matter.
"""

from __future__ import annotations

import re
import unicodedata

_RUN = re.compile(r"[^\W_]+")
_ASCII_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_EXTENSION = re.compile(r"[^\W_][\w+-]{0,15}\Z")
_SPACES = {ord(c): chr(0xF0000 + ord(c)) for c in map(chr, range(0x3001)) if c.isspace()}
_COMPRESSED = frozenset({"gz", "bz2", "xz", "zst", "lz4", "z", "lzma", "br"})


def fold(text: str) -> str:
    """Return ``text`` as it is compared: without case, composed (NFC), so that NFC and NFD twins are one."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def runs(text: str) -> list[list[str]]:
    """Return the words of ``text``, folded, grouped by unbroken runs of letters and digits: ``rawData x`` is two runs."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return [_run(run) for run in _RUN.findall(text)]


def words(text: str) -> list[str]:
    """Return the words of ``text`` in order, folded."""
    return [part for run in runs(text) for part in run]


def _run(run: str) -> list[str]:
    if not run.isascii():
        return [fold(part) for part in _parts(run)]
    # Most runs are one word; it is cheaper to see that than to cut them.
    if run.isdigit() or (run.isalpha() and (run.islower() or run.istitle() or run.isupper())):
        return [run.lower()]
    return [part.lower() for part in _ASCII_PART.findall(run)]


def _parts(run: str) -> list[str]:
    """Cut a run as ``_ASCII_PART`` does, for every script: a letter that has no case counts as a small one."""
    parts: list[str] = []
    begin = 0
    for at in range(1, len(run)):
        left, right = run[at - 1], run[at]
        if left.isdigit() != right.isdigit() or (not left.isdigit() and _cut(left, right, run[at + 1 : at + 2])):
            parts.append(run[begin:at])
            begin = at
    parts.append(run[begin:])
    return parts


def _cut(left: str, right: str, after: str) -> bool:
    """Say whether a word ends between two letters: at ``aB``, and at ``AB`` where a small letter follows (``HTTPServer``)."""
    if not right.isupper():
        return False
    return not left.isupper() or (after != "" and not after.isdigit() and not after.isupper())


def spaced(text: str) -> str:
    """Return folded text with its white space replaced, as names, paths and values are indexed for patterns.

    White space would end a term, and a line feed is not "any character" to a regex; each becomes a private-use character.
    """
    return text if text.split() == [text] else text.translate(_SPACES)


def name_of(path: str) -> str:
    """Return the last part of a path: the file's own name."""
    return path.rpartition("/")[2]


def extension(name: str) -> str:
    """Return a file name's extension, folded, without the dot; empty if it has none.

    Compressed files keep the part before (``nii.gz``); a name that begins with a dot has none; longer than 16 characters
    is not an extension but part of a sentence.
    """
    stem, dot, last = fold(name).rpartition(".")
    if not dot or not stem.strip(".") or not _EXTENSION.match(last):
        return ""
    if last in _COMPRESSED:
        inner_stem, inner_dot, inner = stem.rpartition(".")
        if inner_dot and inner_stem.strip(".") and _EXTENSION.match(inner) and not inner.isdigit():
            return f"{inner}.{last}"
    return last
