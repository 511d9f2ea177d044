"""A hub in one file: its SQLite database, copied while it is in use, and the secret of its data directory.

Whoever has such a file is that hub as far as its nodes can tell, so it is written for its owner's eyes only. The search index
is not in it: a hub makes that again by itself.
"""

from __future__ import annotations

import os
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from sqlalchemy import make_url

from hub.home import SECRET_FILE, trouble
from hub.settings import Settings
from protocol.errors import BadInput, BadSetting, Conflict

DATABASE: Final = "hub.sqlite"
"""What the database is called in the file."""
_SIDES: Final = ("", "-wal", "-shm", "-journal")


def database_file(settings: Settings) -> Path:
    """Return where the SQLite database lies. Raises BadInput where the hub uses PostgreSQL."""
    url = make_url(settings.database_url)
    if not url.drivername.startswith("sqlite") or not url.database:
        raise BadInput(
            "This hub keeps its database in PostgreSQL, whose own tools copy and restore it.",
            todo="pg_dump -Fc makes a copy, pg_restore puts it back; then: wio-hub restored. Keep the secret as well.",
        )
    return Path(url.database)


def write(settings: Settings, target: Path) -> tuple[tuple[str, ...], int]:
    """Write a backup to a file that is not there yet; return what is in it and its bytes. The hub may run meanwhile.

    Raises BadInput (PostgreSQL), Conflict (the file is there), BadSetting (no database, or one that is damaged), DiskFull.
    """
    database = database_file(settings)
    if not database.is_file():
        raise BadSetting(f"There is no database at {database}.", todo="Is this the right data directory? wio-hub settings")
    if target.exists():
        raise Conflict(f"{target} is there already; a backup replaces nothing.", todo="Choose another name.")
    try:
        with TemporaryDirectory(prefix=".wio-backup-", dir=target.resolve().parent) as folder:
            parts = [_copied(database, Path(folder) / DATABASE)]
            secret = settings.data / SECRET_FILE
            if secret.is_file() and settings.secret is None:
                parts.append(secret)
            whole = Path(folder) / "whole.tar"
            with open(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - the mode
                with tarfile.open(fileobj=file, mode="w") as tar:
                    for part in parts:
                        tar.add(part, arcname=part.name, recursive=False, filter=_plain)
                file.flush()
                os.fsync(file.fileno())
            os.link(whole, target)
    except FileExistsError as error:
        raise Conflict(f"{target} was made by somebody else just now.", todo="Choose another name.") from error
    except OSError as error:
        raise trouble(target.parent, error) from error
    return tuple(part.name for part in parts), target.stat().st_size


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who owns it here."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _copied(database: Path, to: Path) -> Path:
    """Copy a database that may be in use, as of one moment; raise BadSetting where the copy is not sound."""
    os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as here,
            closing(sqlite3.connect(to)) as there,
        ):
            here.backup(there)
            there.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise BadSetting(f"The database {database} cannot be copied: {error}.", todo="Look at it: wio-hub verify.") from error
    wrong = damage(to)
    if wrong:
        raise BadSetting(f"The database {database} is damaged: {wrong}.", todo="Restore an older backup; keep this one too.")
    return to


def read(settings: Settings, source: Path) -> tuple[str, ...]:
    """Put a backup into a data directory that holds no hub, and return what was in it.

    Raises BadInput (PostgreSQL, or no backup), Conflict (there is a hub), BadSetting (damaged), DiskFull.
    """
    database = database_file(settings)
    there = [path for path in (settings.data / SECRET_FILE, *_beside(database)) if path.exists()]
    if there:
        raise Conflict(
            f"{there[0]} is there: a backup is restored into an empty data directory only.",
            todo="Give an empty one with --data, or move this one away first.",
        )
    try:
        with TemporaryDirectory(prefix=".wio-restore-", dir=settings.data) as folder:
            parts = _unpacked(source, Path(folder))
            wrong = damage(parts[DATABASE])
            if wrong:
                raise BadSetting(f"The database in {source} is damaged: {wrong}.", todo="Restore another backup.")
            if SECRET_FILE in parts:
                parts[SECRET_FILE].rename(settings.data / SECRET_FILE)
            parts[DATABASE].rename(database)
    except tarfile.TarError as error:
        raise BadInput(f"{source} is no backup of a hub: {error}.") from error
    except OSError as error:
        raise trouble(source, error) from error
    return tuple(parts)


def discard(settings: Settings) -> None:
    """Take back what ``read`` has put there."""
    for path in (settings.data / SECRET_FILE, *_beside(database_file(settings))):
        path.unlink(missing_ok=True)


def _beside(database: Path) -> list[Path]:
    return [database.with_name(database.name + side) for side in _SIDES]


def _unpacked(source: Path, folder: Path) -> dict[str, Path]:
    """Take the two files that are known out of a backup, and nothing else that may be in it."""
    found: dict[str, Path] = {}
    with tarfile.open(source, mode="r:") as tar:
        for member in tar:
            if member.name not in {DATABASE, SECRET_FILE} or not member.isreg() or member.name in found:
                raise BadInput(f"{source} is no backup of a hub: there is something else in it.")
            data = tar.extractfile(member)
            path = folder / member.name
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - the mode
                while data is not None and (block := data.read(1 << 20)):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            found[member.name] = path
    if DATABASE not in found:
        raise BadInput(f"{source} is no backup of a hub: there is no database in it.")
    return found


def damage(database: Path) -> str:
    """Say what is wrong with an SQLite database; empty where nothing is."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            dangling = connection.execute("PRAGMA foreign_key_check").fetchmany(5)
    except sqlite3.Error as error:
        return str(error)
    if found != ["ok"]:
        return "; ".join(found)[:500]
    if dangling:
        return "; ".join(f"row {row[1]} of {row[0]} points to no row of {row[2]}" for row in dangling)
    return ""
