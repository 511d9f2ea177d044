"""A stand for the scenarios of a file: they share it, one after the other, as each leaves it working."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.runner import SOAK, Stands


@pytest.fixture(scope="module")
def stands() -> Iterator[Stands]:
    made = Stands()
    yield made
    made.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every scenario is a long run where ``make soak`` asks for it."""
    for item in items:
        if "/tests/faults/" in item.path.as_posix():
            item.add_marker(pytest.mark.soak)
            item.add_marker(pytest.mark.timeout(600 if SOAK else 200))
