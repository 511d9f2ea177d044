"""Plain text: what it is written in, and its first words."""

from __future__ import annotations

import re
from typing import Final

from protocol.fields import Fields, fitted
from spoke_agent.extractors.interface import Unreadable, Wanted, ending
from spoke_agent.extractors.source import Source

_ENDINGS: Final = (
    "", ".txt", ".text", ".md", ".rst", ".adoc", ".org", ".tex", ".bib", ".log", ".csv", ".tsv", ".json", ".jsonl", ".ndjson",
    ".geojson", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".properties", ".xml", ".html", ".htm", ".xhtml", ".svg",
    ".py", ".pyi", ".ipynb", ".r", ".rmd", ".jl", ".m", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".cu", ".f", ".f90", ".java",
    ".kt", ".scala", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".css", ".go", ".rs", ".rb", ".pl", ".php", ".lua", ".swift", ".sh",
    ".bash", ".zsh", ".ps1", ".bat", ".sql", ".do", ".sas", ".nf", ".smk", ".wdl", ".cwl", ".tf", ".srt", ".vtt", ".fasta",
    ".fa", ".fastq", ".fq", ".vcf", ".bed", ".gff", ".gtf", ".sam", ".bval", ".bvec", ".eml", ".diff", ".patch",
)  # fmt: skip
_BOMS: Final = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MOST_CONTROL: Final = 0.01
"""Share of control bytes above which it is no text: logs have a few, binary files many."""
_SPACES: Final = re.compile(r"\s+")


class Text:
    """Reads the first 64 KiB, which come with every file."""

    name = "text"
    version = 1
    what = "text"
    endings = _ENDINGS
    needs: tuple[str, ...] = ()

    def fits(self, key: str, head: bytes) -> bool:
        """Say whether it is named like text and begins like it."""
        return ending(key) in self.endings and _encoding(head) is not None

    def extract(self, source: Source, wanted: Wanted) -> Fields:
        """Read the encoding; for ``content`` the words, spaces between them made one."""
        encoding = _encoding(source.head)
        if encoding is None:
            raise Unreadable("It is named like text and is none.")
        values = {"text.encoding": encoding.removesuffix("-sig")}
        if wanted is Wanted.METADATA:
            return fitted("text", values)
        # The end of the first bytes may lie within a character: that one is left out.
        return fitted("text", values, text=_SPACES.sub(" ", source.head.decode(encoding, "ignore")).strip())


def _encoding(head: bytes) -> str | None:
    """Return what bytes are written in; None where they are no text. What is not Unicode is read as Western European."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    if b"\0" in head or len(_CONTROL.findall(head)) > _MOST_CONTROL * len(head):
        return None
    if head.isascii():
        return "ascii"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # Cut within the last character: still UTF-8.
        return "utf-8" if error.start >= len(head) - 3 and error.reason == "unexpected end of data" else "cp1252"
    return "utf-8"
