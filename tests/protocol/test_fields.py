"""What extractors found is always made to fit, and nothing that does not fit is read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage
from protocol.fields import MAX_FIELDS, MAX_NAME, MAX_TEXT, MAX_VALUE, MAX_VALUES, Fields, fitted, pack, unpack

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(st.text(), st.dictionaries(st.text(), ANYTHING), st.dictionaries(st.text(), st.text()), st.text(max_size=100), st.text())
def test_whatever_was_found_is_made_to_fit_and_comes_back(
    kind: str, values: dict[str, object], tags: dict[str, str], text: str, problem: str
) -> None:
    made = fitted(kind, values, tags=tags, text=text, problem=problem)
    assert unpack(pack(made)) == made


def test_names_are_lower_case_parts_with_dots_between() -> None:
    found = fitted("dicom", {"DICOM.Patient Age": "034Y", "image..Width": 4, "..": 1, "": 2, "Ärger": 3})
    assert found.values == {"dicom.patient_age": "034Y", "image.width": 4, "rger": 3}


def test_several_values_are_one_text_and_numbers_that_nothing_can_hold_are_left_out() -> None:
    found = fitted("image", {"a": [1, 2.5, "x", None], "b": float("nan"), "c": 2**64, "d": b"\xff\x00k", "e": True, "f": None})
    assert found.values == {"a": "1, 2.5, x", "d": "\ufffdk", "e": True}


def test_a_list_without_end_is_cut_where_there_is_no_more_room() -> None:
    assert len(str(fitted("x", {"a": ["word"] * 10_000}).values["a"])) <= MAX_VALUE


def test_too_much_of_anything_is_cut() -> None:
    values = {f"n{at:03}" + "x" * 200: "v" * 5000 for at in range(1000)}
    tags = {f"{at}" + "t" * 500: "u" * 500 for at in range(50)}
    found = fitted("k" * 99, values, tags=tags, text="\U0001f600" * 100_000, problem="p" * 9999)
    assert len(pack(found)) <= MAX_FIELDS
    assert len(found.values) <= MAX_VALUES
    assert all(len(name) <= MAX_NAME for name in found.values)
    assert len(found.text) <= MAX_TEXT
    assert unpack(pack(found)) == found


def test_values_that_alone_are_too_much_are_halved_until_they_fit() -> None:
    found = fitted("k", {f"n{at}": "\U0001f600" * MAX_VALUE for at in range(MAX_VALUES)})
    assert 0 < len(pack(found)) <= MAX_FIELDS
    assert found.values


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(["k" * 21]),
        msgspec.msgpack.encode(["", {"Upper": 1}]),
        msgspec.msgpack.encode(["", {"a.b\n": 1}]),
        msgspec.msgpack.encode(["", {"a": [1]}]),
        msgspec.msgpack.encode(["", {}, {}, "x" * (MAX_TEXT + 1)]),
        msgspec.msgpack.encode(["", {}, {}, "", "", 6]),
        b"\x95\xa0\x80\x80\xa1\xff\xa0",
        bytes(MAX_FIELDS + 1),
    ],
)
def test_what_is_not_fields_is_refused(raw: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack(raw)


def test_fields_may_all_be_empty() -> None:
    empty: Any = unpack(pack(Fields()))
    assert empty == Fields()


def test_numbers_of_a_librarys_own_classes_become_plain_ones() -> None:
    class Whole(int):
        pass

    class Real(float):
        pass

    made = fitted("dicom", {"a": Whole(3), "b": Real(1.5), "c": True})
    assert unpack(pack(made)).values == {"a": 3, "b": 1.5, "c": True}
    assert [type(value) for value in made.values.values()] == [int, float, bool]
