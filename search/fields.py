"""What a document looks like in the embedded index: the schema, and the terms of one document.

Every order and every comparison that the engine makes is over these fields, so whatever changes here needs a new FORMAT:
an index of another format is not opened but built again.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

import msgspec
import tantivy

from search import facts
from search.document import Document
from search.words import extension, fold, name_of, runs, spaced

FORMAT: Final = 2

MARKER: Final = "position"
"""The ``id`` of the one document that is no file: it holds the position, and lies in no workspace."""

START, END = chr(0xFFFF0), chr(0xFFFF1)
"""Stand around a name before it is cut into threes, so that its beginning and end can be asked for; private-use."""

_ENCODE = msgspec.msgpack.Encoder()
_DECODE = msgspec.msgpack.Decoder(tuple[int, int, str, str, int, int, int])


def schema() -> tantivy.Schema:
    """Return the fields of FORMAT."""
    builder = tantivy.SchemaBuilder()
    # Identity: deleted by it, sorted by it where all else is equal. Hexadecimal, because only letters and digits are safe
    # in the text form that a range over terms needs.
    builder.add_text_field("id", tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_text_field("path", tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_unsigned_field("size", fast=True)  # compared and sorted in columns: terms would cost and be of no use
    builder.add_unsigned_field("mtime", fast=True)
    # What filters and facets need.
    builder.add_unsigned_field("workspace", indexed=True, fast=True)
    builder.add_unsigned_field("root", fast=True)
    builder.add_text_field("extension", tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_text_field("ends", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("folder", tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("hidden", indexed=True)
    # What words and patterns need.
    builder.add_text_field("words", tokenizer_name="whitespace", index_option="position")
    builder.add_text_field("name_words", tokenizer_name="whitespace", index_option="position")
    builder.add_text_field("name", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("stem", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("folded", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("threes", tokenizer_name="whitespace", index_option="position")
    builder.add_unsigned_field("length", fast=True)
    facts.add_schema(builder)
    # What comes back.
    builder.add_bytes_field("document", stored=True)
    builder.add_unsigned_field("position", stored=True)
    return builder.build()


def identity(root: int, key: str) -> str:
    """Return the term that names (root, key); such terms sort as (root, key) does, keys by their UTF-8 bytes."""
    return f"{root:014x}{key.encode().hex()}"


def path_term(path: str) -> str:
    """Return the term of a path; such terms sort as paths do, by their UTF-8 bytes. Never empty."""
    return f"x{path.encode().hex()}"


def path_of(term: str) -> str:
    """Give back the path of a term."""
    return bytes.fromhex(term[1:]).decode()


def threes(padded: str) -> list[str]:
    """Cut a name between START and END into overlapping pieces of three characters."""
    return list(map("".join, zip(padded, padded[1:], padded[2:], strict=False))) or [padded]


def to_index(document: Document) -> tantivy.Document:
    """Return the index's form of a document."""
    path = document.path
    name = name_of(path)
    above = _above(path[: len(path) - len(name)])
    folded_name = fold(name)
    # Nothing composes across a slash, so the two halves folded are the whole folded.
    folded_path = above.folded + folded_name
    spaced_name = spaced(folded_name)
    name_runs = runs(name)
    ending = extension(name)
    found = tantivy.Document()
    found.add_text("id", identity(document.root, document.key))
    found.add_text("path", path_term(path))
    found.add_unsigned("size", document.size)
    found.add_unsigned("mtime", document.mtime)
    found.add_unsigned("workspace", document.workspace)
    found.add_unsigned("root", document.root)
    found.add_text("extension", ending)
    found.add_text("ends", ending)
    if "." in ending:
        found.add_text("ends", ending.rpartition(".")[2])
    for folder in above.folders if name else folders(path):
        found.add_text("folder", folder)
    if path.startswith("/"):
        found.add_text("folder", path.strip("/"))
    if above.hidden or name.startswith("."):
        found.add_unsigned("hidden", 1)
    found.add_text("words", facts.searched([*above.runs, *name_runs]))
    found.add_text("name_words", facts.searched(name_runs))
    found.add_text("name", spaced_name)
    if ending:
        found.add_text("stem", spaced_name[: -len(ending) - 1])
    found.add_text("folded", spaced(folded_path))
    found.add_text("threes", " ".join(threes(START + spaced_name + END)))
    found.add_unsigned("length", len(folded_name))
    if document.fields is not None:
        facts.add(found, document.fields)
    kept = document.root, document.workspace, document.key, path, document.size, document.mtime, document.revision
    found.add_bytes("document", _ENCODE.encode(kept))
    return found


def marker(position: int) -> tantivy.Document:
    """Return the document that remembers the position; it is written with the commit that it belongs to."""
    found = tantivy.Document()
    found.add_text("id", MARKER)
    found.add_unsigned("position", position)
    return found


def from_index(found: tantivy.Document) -> Document:
    """Give back the document that ``to_index`` took, without its fields."""
    return Document(*_DECODE.decode(found.get_first("document") or b""))


def folders(path: str) -> list[str]:
    """Return every folder above a file, and the file: ``a/b/c`` lies at a, a/b and a/b/c."""
    path = path.strip("/")
    return [path[:at] for at, character in enumerate(path) if character == "/"] + [path]


def is_hidden(path: str) -> bool:
    """Say whether the name or a folder above it begins with a dot."""
    return path.startswith(".") or "/." in path


class _Above(NamedTuple):
    """What a folder, with its final slash, gives to everything that lies right in it."""

    folded: str
    runs: list[list[str]]
    folders: list[str]
    hidden: bool


@functools.lru_cache(maxsize=1024)
def _above(folder: str) -> _Above:
    return _Above(fold(folder), runs(folder), folders(folder + "x")[:-1], is_hidden(folder))
