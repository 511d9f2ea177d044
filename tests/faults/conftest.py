"""A stand for all scenarios of a test process: they share it, one after the other, as each leaves it working."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.postgres import Postgres
from tests.faults.runner import SOAK, Stands
from tests.faults.stand import start


@pytest.fixture(scope="session")
def stands() -> Iterator[Stands]:
    made = Stands()
    yield made
    made.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    made = Postgres.made()
    if made is None:
        pytest.skip("there is no PostgreSQL here, or no setpriv to run it as somebody else than root")
    start(made)
    yield made
    made.remove()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every scenario is a long run where ``make soak`` asks for it."""
    for item in items:
        if "/tests/faults/" in item.path.as_posix():
            item.add_marker(pytest.mark.soak)
            item.add_marker(pytest.mark.timeout(600 if SOAK else 200))
