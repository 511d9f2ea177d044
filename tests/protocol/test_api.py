"""The people's side: every value comes back from JSON, input is strict, output may grow."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from protocol import api
from protocol.api import RootKind, _In, _Out
from tests.protocol.shapes import values

STRUCTS: list[type[Any]] = [*_In.__subclasses__(), *_Out.__subclasses__()]


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_every_value_comes_back_from_json(kind: type[Any]) -> None:
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(values(kind))
    def goes_and_comes(value: Any) -> None:
        assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value

    goes_and_comes()


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_a_field_that_nobody_knows_is_refused_in_what_people_send_and_passed_over_in_what_they_get(kind: type[Any]) -> None:
    @settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(values(kind))
    def grows(value: Any) -> None:
        grown = msgspec.json.encode({**msgspec.to_builtins(value), "newer_than_this": 1})
        if issubclass(kind, _In):
            with pytest.raises(msgspec.ValidationError, match="newer_than_this"):
                msgspec.json.decode(grown, type=kind)
        else:
            assert msgspec.json.decode(grown, type=kind) == value

    grows()


def test_the_table_of_addresses_speaks_only_of_types_that_exist() -> None:
    assert api.__doc__
    rows = [line for line in api.__doc__.splitlines() if re.match(r"    (GET|POST|PUT|PATCH|DELETE) ", line)]
    assert len(rows) > 20
    named = {word for row in rows for word in re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)*\b", row)}
    assert named <= {kind.__name__ for kind in STRUCTS}
    assert {kind.__name__ for kind in _In.__subclasses__()} <= named


def test_what_each_kind_of_root_means() -> None:
    assert {kind.value: (kind.public, kind.managed) for kind in RootKind} == {
        "public": (True, True),
        "private": (False, True),
        "unmanaged-public": (True, False),
        "unmanaged-private": (False, False),
    }
