"""Two parties to talk to one another, fresh for each test."""

from __future__ import annotations

import pytest

from tests.protocol.parties import JOIN_KEY, WISHES, Pair


@pytest.fixture
def pair() -> Pair:
    """An agent that has joined, and its hub."""
    return Pair()


@pytest.fixture
def joining() -> Pair:
    """An agent that is enrolling, and its hub."""
    return Pair(join=(JOIN_KEY, WISHES))
