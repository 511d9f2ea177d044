"""PDF: pages, title and author; for level content, words of the first pages."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from protocol.fields import MAX_TEXT, Fields, fitted
from spoke_agent.extractors.interface import Wanted
from spoke_agent.extractors.source import Source

if TYPE_CHECKING:
    from pypdf import PdfReader

_MARK: Final = b"%PDF-"
_WHERE: Final = 1024
"""Bytes within which the mark has to come (PDF 1.7, annex H, note 13)."""
_PAGES: Final = 50
"""Pages whose words are read."""
_MOST_PAGES: Final = 10_000_000


class Pdf:
    """Reads the document's information, and words until there are enough."""

    name = "pdf"
    version = 1
    what = "a PDF file"
    endings: tuple[str, ...] = (".pdf",)
    needs: tuple[str, ...] = ("pypdf",)

    def fits(self, key: str, head: bytes) -> bool:
        """Say whether it has the mark near its beginning."""
        return head.startswith(_MARK) or (key.lower().endswith(self.endings) and _MARK in head[:_WHERE])

    def extract(self, source: Source, wanted: Wanted) -> Fields:
        """Read what is wanted. A document that needs a password gives no more than that."""
        import pypdf  # noqa: PLC0415 - imported where a file is read

        reader = pypdf.PdfReader(source.file(), strict=False)
        # Many are encrypted with an empty password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            return fitted("pdf", {"pdf.encrypted": True}, problem="It needs a password.")
        about = reader.metadata
        values: dict[str, object] = {
            "pdf.pages": min(reader.get_num_pages(), _MOST_PAGES),
            "pdf.encrypted": reader.is_encrypted,
        }
        if about is not None:
            for name in ("title", "author", "subject", "keywords", "creator", "producer"):
                values[f"pdf.{name}"] = _attribute(about, name) or None
            created = _attribute(about, "creation_date")
            values["pdf.created"] = created.isoformat()[:19] if hasattr(created, "isoformat") else None
        text, problem = _words(reader) if wanted is Wanted.CONTENT else ("", "")
        return fitted("pdf", values, text=text, problem=problem)


def _attribute(about: object, name: str) -> object:
    """Return one entry of a document's information, where it can be read."""
    with contextlib.suppress(Exception):  # a date that is none costs that date, not the document
        return getattr(about, name)
    return None


def _words(reader: PdfReader) -> tuple[str, str]:
    """Return the words of the first pages, and a sentence where pages could not be read."""
    found: list[str] = []
    length = failed = 0
    for number in range(min(_PAGES, reader.get_num_pages())):
        try:
            words = " ".join(reader.pages[number].extract_text().split())
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - pypdf raises whatever it stumbles over; other pages may be sound
            failed += 1
            continue
        found.append(words[: MAX_TEXT - length])
        length += len(found[-1]) + 1
        if length >= MAX_TEXT:
            break
    return "\n".join(found)[:MAX_TEXT], f"The words of {failed} of its pages cannot be read." if failed else ""
