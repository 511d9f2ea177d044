"""A pool with one worker that tests share, and files as the pool reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from protocol.fields import Fields
from protocol.messages import IndexLevel
from spoke_agent.extraction import Budget, Extraction


class Opened:
    """A file that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.asked: list[tuple[int, int]] = []

    async def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length > 0
        assert offset + length <= self.size
        self.asked.append((offset, length))
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    @property
    def bytes(self) -> int:
        return sum(length for _, length in self.asked)


Look = Callable[..., Awaitable[Fields | None]]


@pytest.fixture(scope="session")
async def pool() -> AsyncIterator[Extraction]:
    made = Extraction()
    yield made
    await made.close()


@pytest.fixture(scope="session")
async def small() -> AsyncIterator[Extraction]:
    """A pool that reads no more of a file than its first bytes."""
    made = Extraction(budget=Budget(bytes=64 * 1024))
    yield made
    await made.close()


@pytest.fixture
def opened() -> type[Opened]:
    return Opened


@pytest.fixture
def look(pool: Extraction) -> Look:
    """Read the fields of a file, under its own name or another."""

    async def one(path: Path, level: IndexLevel = IndexLevel.CONTENT, name: str | None = None) -> Fields | None:
        file = Opened(path)
        return await pool.extract(name or path.name, file.size, level, file.read)

    return one
