"""Bring a database to the newest layout, in this process: one transaction, so it is all done or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from hub.db.database import Database
from protocol.errors import BadSetting

_LOCK: Final = 0x77696F  # any number, the same in every worker of every version


async def upgrade(url: str, *, to: str = "head") -> None:
    """Make or update all tables of the database at ``url``, up to a revision.

    Several workers may call it at once: one does the work, the others wait for it. Raises BadSetting where the database
    was written by a newer hub.
    """
    database = Database(url)
    try:
        async with database.write() as connection:
            if not database.sqlite:  # SQLite's write transactions wait for each other anyway
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await connection.run_sync(_upgrade, to)
    finally:
        await database.close()


async def current(url: str) -> str | None:
    """Return the revision a database is at; None where it has no tables yet."""
    database = Database(url)
    try:
        async with database.read() as connection:
            return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
    finally:
        await database.close()


def newest() -> str | None:
    """Return the revision that this hub brings a database to."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _upgrade(connection: Connection, to: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, to)
    except CommandError as error:
        raise BadSetting(
            f"The database cannot be brought to this hub's layout: {error}.",
            todo="If a newer hub has written it, run that one, or restore a backup.",
        ) from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
