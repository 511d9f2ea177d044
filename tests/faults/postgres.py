"""A PostgreSQL of a test's own, that it may restart and kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self

from deploy.running import START_S, STOP_S, NotStarted, Program, free_port
from tests.hub.conftest import _programs, _reachable

_UNPRIVILEGED: Final = "nobody"


class Postgres(Program):
    """A cluster in a folder of its own. ``stop`` is its fast shutdown, which waits for no client."""

    def __init__(self, programs: Path) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="wio-faults-postgres-"))
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None  # it refuses to run as root
        if self._user:
            shutil.chown(self.folder, self._user)
        self._programs = _reachable(programs, self._user, self.folder)
        data = self.folder / "data"
        subprocess.run(
            [self._programs / "initdb", "-D", data, "-U", "wio", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            user=self._user,
        )
        options = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"]
        as_whom = ["setpriv", f"--reuid={self._user}", "--clear-groups", "--"] if self._user else []
        command = [*as_whom, self._programs / "postgres", "-D", data, *options, "-c", "fsync=off"]
        super().__init__(command, log=self.folder / "server.log")

    @classmethod
    def made(cls) -> Self | None:
        """Make one; None where this machine has no PostgreSQL."""
        programs = _programs()
        return None if programs is None or (os.geteuid() == 0 and shutil.which("setpriv") is None) else cls(programs)

    def ready(self) -> bool:
        """Whether it takes connections."""
        ask = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ask, check=False).returncode == 0

    def start(self) -> None:
        """Start it; after a SIGKILL its children take a moment to notice, and until then it refuses."""
        end = time.monotonic() + START_S
        while True:
            try:
                super().start()
            except NotStarted:
                if "shared memory block" not in self.tail() or time.monotonic() > end:
                    raise
            else:
                return

    def stop(self) -> None:
        """Its fast shutdown."""
        if self.process is not None and self.running:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(STOP_S * 3)
        super().stop()

    def database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        command = [self._programs / "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "wio", "-T", "template0", name]
        subprocess.run(command, check=True)
        return f"postgresql+asyncpg://wio@127.0.0.1:{self.port}/{name}"

    def remove(self) -> None:
        """Stop it and leave nothing."""
        self.stop()
        shutil.rmtree(self.folder)
