"""Whether the hub can do its work: database, search engine, disk."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

from sqlalchemy import text

from hub.db.database import Database
from protocol.api import Health
from search.engine import Engine

_LOG: Final = logging.getLogger("wio.hub.health")

OK: Final = "ok"
DEADLINE_S: Final = 5.0
LEAST_FREE: Final = 200_000_000
"""Bytes. Below this an index merge or a burst of changes may fill the disk before anybody looks."""


class HubHealth:
    """Checks what the hub stands on. The words are for strangers too: they tell no path and no address."""

    def __init__(self, *, database: Database, engine: Engine, data: Path) -> None:
        self._database = database
        self._engine = engine
        self._data = data

    async def check(self) -> Health:
        """Look at every part now; takes DEADLINE_S at most."""
        parts = {
            "database": await _tried("database", self._database_answers()),
            "index": await _tried("index", self._engine_answers()),
            "disk": self._disk(),
        }
        return Health(all(word == OK for word in parts.values()), parts)

    async def _database_answers(self) -> None:
        async with self._database.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def _engine_answers(self) -> None:
        await self._engine.position()

    def _disk(self) -> str:
        try:
            free = shutil.disk_usage(self._data).free
        except OSError:
            return "the data directory is gone"
        return OK if free >= LEAST_FREE else f"{free // 1_000_000} MB left in the data directory"


async def _tried(part: str, looking: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(DEADLINE_S / 2):
            await looking
    except Exception as error:  # noqa: BLE001  - whatever it is, the part does not work, and health is where that is said
        _LOG.warning("The %s does not answer: %s", part, type(error).__name__)
        return "does not answer"
    return OK
