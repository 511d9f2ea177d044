"""Valid values of every message type, and what just misses its limits: both are read from the types themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as kinds

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
MAX_WIRE_INT = 2**63 - 1


def values(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for every value of a message type, with lists and texts kept short."""
    return _values(kinds.type_info(kind))


def _values(info: kinds.Type) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911, PLR0912 - one line for each kind of type
    match info:
        case kinds.StructType():
            return st.builds(info.cls, **{field.name: _values(field.type) for field in info.fields})
        case kinds.IntType():
            low = info.ge if info.ge is not None else -(2**63)
            high = info.le if info.le is not None else MAX_WIRE_INT
            return st.sampled_from((low, high)) | st.integers(low, high)
        case kinds.StrType():
            if info.pattern is not None:
                return st.from_regex(info.pattern)
            return TEXT.filter(lambda text: (info.min_length or 0) <= len(text))
        case kinds.BytesType():
            return st.binary(min_size=info.min_length or 0, max_size=min(info.max_length or 40, 64))
        case kinds.VarTupleType():
            return st.lists(_values(info.item_type), min_size=info.min_length or 0, max_size=3).map(tuple)
        case kinds.TupleType():
            return st.tuples(*(_values(item) for item in info.item_types))
        case kinds.UnionType():
            return st.one_of(*(_values(one) for one in info.types))
        case kinds.EnumType():
            return st.sampled_from(info.cls)
        case kinds.BoolType():
            return st.booleans()
        case kinds.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case kinds.DictType():
            return st.dictionaries(_values(info.key_type), _values(info.value_type), max_size=3)
        case kinds.NoneType():
            return st.none()
        case _:
            raise TypeError(info)


def misses(kind: type[Any], raw: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield (what is wrong, raw message) for every limit of a type, made from one message that is within all of them.

    ``raw`` is a message as msgpack holds it, a list with its tag first. Each result breaks one limit only.
    """
    yield from _misses(kinds.type_info(kind), raw, kind.__name__)


def _misses(info: kinds.Type, raw: Any, where: str) -> Iterator[tuple[str, Any]]:  # noqa: C901, PLR0912 - see above
    if isinstance(info, kinds.UnionType):
        real = [one for one in info.types if not isinstance(one, kinds.NoneType)]
        if raw is None:
            yield f"{where} of another type", 1.5
            return
        yield from ((wrong, changed) for wrong, changed in _misses(real[0], raw, where) if changed is not None)
        return
    match info:
        case kinds.StructType():
            if isinstance(raw, dict):  # a Problem: newer peers may add to it
                yield f"{where} an array", list(raw.values())
                for field in info.fields:
                    if field.required:
                        yield f"{where} without {field.name}", {k: v for k, v in raw.items() if k != field.name}
                    for wrong, changed in _misses(field.type, raw[field.name], f"{where}.{field.name}"):
                        yield wrong, {**raw, field.name: changed}
                return
            first = 0 if info.tag is None else 1
            required = first + sum(1 for field in info.fields if field.required)
            if required > first:
                yield f"{where} too short", raw[: required - 1]
            yield f"{where} too long", [*raw, 1]
            yield f"{where} not an array", {"a": 1}
            for at, field in enumerate(info.fields[: len(raw) - first], first):
                for wrong, changed in _misses(field.type, raw[at], f"{where}.{field.name}"):
                    yield wrong, [*raw[:at], changed, *raw[at + 1 :]]
        case kinds.IntType():
            yield from ((f"{where} is {odd!r}", odd) for odd in ("1", 1.5, math.nan, math.inf, True, None, [1], b"1"))
            if info.ge is not None:
                yield f"{where} too small", info.ge - 1
            if info.le is not None:
                yield f"{where} too large", info.le + 1
        case kinds.StrType():
            yield from ((f"{where} is {odd!r}", odd) for odd in (b"text", 1, None, ["text"]))
            if info.max_length is not None:
                yield f"{where} too long", "x" * (info.max_length + 1)
            if info.min_length:
                yield f"{where} empty", ""
        case kinds.BytesType():
            yield from ((f"{where} is {odd!r}", odd) for odd in (1, None, [1]))
            if info.max_length is not None:
                yield f"{where} too long", b"x" * (info.max_length + 1)
            if info.min_length:
                yield f"{where} too short", b"x" * (info.min_length - 1)
        case kinds.VarTupleType():
            yield f"{where} not an array", "x"
            if info.max_length is not None and raw:
                yield f"{where} too many", [raw[0]] * (info.max_length + 1)
            if info.min_length:
                yield f"{where} too few", []
            for at, item in enumerate(raw):
                for wrong, changed in _misses(info.item_type, item, f"{where}[{at}]"):
                    yield wrong, [*raw[:at], changed, *raw[at + 1 :]]
        case kinds.EnumType():
            yield from ((f"{where} is {odd!r}", odd) for odd in ("nothing", 99, None))
        case kinds.BoolType():
            yield from ((f"{where} is {odd!r}", odd) for odd in (0, 1, "true", None))
        case _:
            pass


def shape(message: msgspec.Struct) -> list[Any]:
    """Return a message as msgpack holds it."""
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    assert isinstance(raw, list)
    return raw
