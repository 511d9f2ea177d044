"""Running real servers on loopback: for demo, tests and benchmarks. Each is stopped by the handle that started it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

START_S: Final = 30.0
STOP_S: Final = 10.0


class NotStarted(Exception):
    """A server did not come up; carries the end of its log."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, ready: Callable[[], bool], *, seconds: float = START_S, every: float = 0.02) -> None:
    """Wait until ``ready`` says so; raise TimeoutError that names ``what``."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)


class Program:
    """One process, its log, and how to tell that it is ready."""

    start_s: float = START_S
    """How long it may take until it is ready: more where a machine is known to be busy."""

    def __init__(self, command: Sequence[str | Path], *, log: Path, environment: dict[str, str] | None = None) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self.environment = os.environ | (environment or {})
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        if self.process is None:
            raise NotStarted(f"{self.command[0]} is not running.")
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def ready(self) -> bool:
        """Whether it can be used; a subclass knows."""
        return True

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises NotStarted with the end of its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            until(f"{self.command[0]} ready", lambda: not self.running or self.ready(), seconds=self.start_s)
        except TimeoutError as error:
            self.kill()
            raise NotStarted(f"{error}\n{self.tail()}") from error
        if not self.running:
            raise NotStarted(f"{self.command[0]} ended by itself ({self.process.returncode}):\n{self.tail()}")

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self.process is None:
            return
        if self.running:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process = None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def answers(url: str, path: str, status: int = http.client.OK) -> bool:
    """Say whether a GET on loopback is answered with this status."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Minio(Program):
    """A MinIO server on a data directory. ``user`` and ``password`` are its root key."""

    def __init__(self, program: Path, data: Path, *, port: int | None = None, log: Path | None = None) -> None:
        self.port = port or free_port()
        self.data = data
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.user = "owner-of-this-server"
        self.password = "a-password-of-the-owner"  # noqa: S105 - of a throwaway server on loopback
        data.mkdir(parents=True, exist_ok=True)
        super().__init__(
            [program, "server", data, "--address", self.host, "--quiet"],
            log=log or data.with_name(data.name + ".log"),
            environment={
                "MINIO_ROOT_USER": self.user,
                "MINIO_ROOT_PASSWORD": self.password,
                "MINIO_BROWSER": "off",
                "MINIO_UPDATE": "off",
                "MINIO_CI_CD": "on",  # lets it use the same disk as the system's root
            },
        )

    @property
    def keys(self) -> dict[str, str]:
        """The environment in which `wio-agent join --admin-env` finds the owner's key."""
        return {"MINIO_ROOT_USER": self.user, "MINIO_ROOT_PASSWORD": self.password}

    def ready(self) -> bool:
        """Whether it serves, and knows its users: it says it is ready some 100 ms before it does (503 until then)."""
        return answers(self.url, "/minio/health/ready") and answers(self.url, "/", http.client.FORBIDDEN)
