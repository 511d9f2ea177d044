from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from hub.db.database import Database
from hub.db.migrate import upgrade
from hub.db.tables import settings
from hub.services.hub_key import ROW, SecretKeys, open_hub_key
from protocol.errors import BadSetting
from protocol.identity import public_bytes

_KEYS = SecretKeys("a secret of more than thirty-two letters")


class _Dice:
    def __init__(self) -> None:
        self._random = random.Random(7)  # noqa: S311 - tests repeat themselves

    def new_id(self) -> int:
        return self._random.randint(1, 2**53 - 1)

    def secret(self, size: int) -> bytes:
        return self._random.randbytes(size)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'hub.sqlite'}"
    await upgrade(url)
    database = Database(url)
    yield database
    await database.close()


async def test_the_key_is_the_same_every_time_it_is_opened(database: Database) -> None:
    first = await open_hub_key(database, _KEYS, _Dice())
    again = await open_hub_key(database, _KEYS, _Dice())
    assert public_bytes(first) == public_bytes(again)


async def test_the_database_holds_nothing_that_signs(database: Database) -> None:
    key = await open_hub_key(database, _KEYS, _Dice())
    async with database.read() as connection:
        value = await connection.scalar(select(settings.c.value).where(settings.c.name == ROW))
    assert isinstance(value, bytes)
    assert key.private_bytes_raw() not in value


async def test_another_secret_is_refused_in_words_and_changes_nothing(database: Database) -> None:
    first = await open_hub_key(database, _KEYS, _Dice())
    with pytest.raises(BadSetting, match="WIO_SECRET") as caught:
        await open_hub_key(database, SecretKeys("another secret of thirty-two letters"), _Dice())
    assert "another secret" not in str(caught.value)
    assert public_bytes(await open_hub_key(database, _KEYS, _Dice())) == public_bytes(first)


@pytest.mark.parametrize("value", [b"", b"short", b"\0" * 60])
async def test_a_damaged_row_is_refused_and_not_replaced(database: Database, value: bytes) -> None:
    await open_hub_key(database, _KEYS, _Dice())
    async with database.write() as connection:
        await connection.execute(update(settings).where(settings.c.name == ROW).values(value=value))
    with pytest.raises(BadSetting):
        await open_hub_key(database, _KEYS, _Dice())
    async with database.read() as connection:
        assert await connection.scalar(select(settings.c.value).where(settings.c.name == ROW)) == value


async def test_two_hubs_get_different_keys(database: Database) -> None:
    dice = _Dice()
    first = await open_hub_key(database, _KEYS, dice)
    async with database.write() as connection:
        await connection.execute(delete(settings))
    assert public_bytes(await open_hub_key(database, _KEYS, dice)) != public_bytes(first)


def test_each_use_of_the_secret_has_a_key_of_its_own_and_none_is_shown() -> None:
    assert len({_KEYS.hub_key, _KEYS.cursors}) == 2
    assert SecretKeys("b" * 32).cursors != SecretKeys("c" * 32).cursors
    assert repr(_KEYS) == "SecretKeys()"
