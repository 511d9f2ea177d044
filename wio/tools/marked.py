"""A section of a text file that is wio's: put in, replaced, taken out. Pure; everything else in the file stays as it was.

The section stands at the end when it is new, and where it was when it is replaced. Taken out, it leaves the bytes that were
there before.
"""

from __future__ import annotations

import re
from typing import Final

BEGIN: Final = ">>> wio: made by wio tools setup, taken out by wio tools setup --undo >>>"
END: Final = "<<< wio <<<"
_CUT: Final = " (the line before had no end)"


def put(text: str, body: str, comment: str = "#") -> str:
    """Return a file's text with this section in it; an empty one takes it out. ``comment`` begins a comment in that file."""
    found = _find(text, comment)
    if not body:
        return text if found is None else text[: found.start() - bool(found["cut"])] + text[found.end() :]
    if found is not None:
        return text[: found.start()] + _section(body, comment, found["cut"]) + text[found.end() :]
    cut = _CUT if text and not text.endswith("\n") else ""
    return text + ("\n" if cut else "") + _section(body, comment, cut)


def rest(text: str, comment: str = "#") -> str:
    """Return a file's text without the section: what somebody else wrote."""
    return put(text, "", comment)


def has(text: str, comment: str = "#") -> bool:
    """Say whether the section is there."""
    return _find(text, comment) is not None


def _find(text: str, comment: str) -> re.Match[str] | None:
    begin, end = re.escape(f"{comment} {BEGIN}"), re.escape(f"{comment} {END}")
    return re.search(rf"^{begin}(?P<cut>{re.escape(_CUT)})?\n.*?^{end}\n", text, re.MULTILINE | re.DOTALL)


def _section(body: str, comment: str, cut: str | None) -> str:
    return f"{comment} {BEGIN}{cut or ''}\n{body.rstrip()}\n{comment} {END}\n"
