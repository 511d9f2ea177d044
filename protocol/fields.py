"""What can be read out of one object: its kind, named values, the storage's own tags, and words of its text.

Extractors on the node make it, a journal row carries it, the hub keeps it beside the catalogue's entry and searches it.
It belongs to one content of the object (size, time and etag) and is dropped with it. Whoever reads a file that somebody
else wrote cannot trust it: everything here is bounded, and ``fitted`` cuts what is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, TypeAlias

import msgspec

from protocol.errors import BadMessage

MAX_VALUES: Final = 200
MAX_NAME: Final = 80
"""Characters of a value's name, ``image.width``."""
MAX_VALUE: Final = 500
"""Characters of a value that is text."""
MAX_TAGS: Final = 10
"""What S3 allows (User Guide, Object tagging)."""
MAX_TEXT: Final = 32_000
"""Characters of text kept for searching, at index level ``content``."""
MAX_FIELDS: Final = 65_536
"""Bytes of it all as msgpack; tried by making the text shorter."""

Value: TypeAlias = str | int | float | bool
"""A value as it is searched: text, a number, or yes and no. No lists: a name with several values is written ``a, b``."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME, pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*\Z")]
_Text = Annotated[str, msgspec.Meta(max_length=MAX_VALUE)]


class Fields(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What was read out of one object. All of it may be empty: then the object was looked at and nothing was found."""

    kind: Annotated[str, msgspec.Meta(max_length=20)] = ""
    """``image``, ``dicom``, ``nifti``, ``netcdf``, ``hdf5``, ``parquet``, ``pdf``, ``text`` …: what ``type:`` asks for."""
    values: Annotated[dict[_Name, _Text | int | float | bool], msgspec.Meta(max_length=MAX_VALUES)] = {}
    """By name, the kind first: ``dicom.modality`` → ``MR``, ``image.width`` → 4000."""
    tags: Annotated[
        dict[Annotated[str, msgspec.Meta(max_length=128)], Annotated[str, msgspec.Meta(max_length=256)]],
        msgspec.Meta(max_length=MAX_TAGS),
    ] = {}
    """The storage's own tags of the object."""
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] = ""
    """The beginning of its text; empty below index level ``content``."""
    problem: _Text = ""
    """Why it could not be read, or not as a whole: one sentence; empty where nothing went wrong."""


_ENCODE = msgspec.msgpack.Encoder()
_DECODE = msgspec.msgpack.Decoder(Fields)


def pack(fields: Fields) -> bytes:
    """Return the bytes of fields that ``fitted`` made, at most MAX_FIELDS."""
    return _ENCODE.encode(fields)


def unpack(body: bytes) -> Fields:
    """Read fields. Raises BadMessage."""
    if len(body) > MAX_FIELDS:
        raise BadMessage("What was read out of an object is larger than the protocol allows.")
    try:
        return _DECODE.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage("What was read out of an object cannot be read.") from error


def fitted(
    kind: str,
    values: Mapping[str, object],
    *,
    tags: Mapping[str, str] | None = None,
    text: str = "",
    problem: str = "",
) -> Fields:
    """Make fields of whatever an extractor found: names in lower case, values cut to size, what does not fit left out.

    Values may be text, bytes, numbers, or lists and tuples of them; anything else is written as text. Numbers that are not
    finite, or beyond 64 bits, are left out.
    """
    kept: dict[str, Value] = {}
    for name, value in values.items():
        known, fitting = _name(name), _value(value)
        if known and fitting is not None and len(kept) < MAX_VALUES:
            kept[known] = fitting
    made = Fields(
        _clean(kind)[:20],
        kept,
        {_clean(name)[:128]: _clean(value)[:256] for name, value in list((tags or {}).items())[:MAX_TAGS]},
        _clean(text)[:MAX_TEXT],
        _clean(problem)[:MAX_VALUE],
    )
    while (over := len(pack(made)) - MAX_FIELDS) > 0:
        if made.text:
            made = msgspec.structs.replace(made, text=made.text[: -(over // 4 + 1)])
        else:
            made = msgspec.structs.replace(made, values=dict(list(made.values.items())[: len(made.values) // 2]))
    return made


def _name(name: str) -> str:
    """Return a name as it is asked for: lower case, underscores for all but letters, digits and the dots between parts."""
    parts = ("".join(c if c.isascii() and c.isalnum() else "_" for c in part).strip("_") for part in name.lower().split("."))
    return ".".join(part for part in parts if part)[:MAX_NAME].rstrip(".")


def _value(value: object) -> Value | None:
    match value:
        case bool():
            return value
        case int() | float():
            if not (math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63):
                return None
            return float(value) if isinstance(value, float) else int(value)  # libraries have numbers of classes of their own
        case bytes():
            return _clean(value.decode("utf-8", "replace"))[:MAX_VALUE]
        case list() | tuple():
            return _joined(value)
        case _:
            return None if value is None else _clean(str(value))[:MAX_VALUE]


def _joined(values: Iterable[object]) -> str:
    """Return several values as one text."""
    parts: list[str] = []
    room = MAX_VALUE
    for value in values:
        one = _value(value)
        if one is None or room <= 0:
            continue
        parts.append(str(one))
        room -= len(parts[-1]) + 2
    return ", ".join(parts)[:MAX_VALUE]


def _clean(text: str) -> str:
    """Return text without NUL and halves of surrogate pairs, which neither a database nor UTF-8 can hold."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
