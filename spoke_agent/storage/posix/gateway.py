"""The gateway as a process: found, started, kept running, ended. What it serves and whom it lets in is others' business.

It listens where people reach it. Its admin calls have a socket of their own in the state directory, where nobody else comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from protocol.errors import BadSetting, StorageUnreachable
from protocol.names import shown
from spoke_agent.storage.posix import keeper
from spoke_agent.storage.posix.serving import Serving
from spoke_agent.storage.sigv4 import Key

PROGRAM: Final = "versitygw"
VARIABLE: Final = "WIO_VERSITYGW"
LEAST: Final = (1, 8)
"""Older ones ignore conditions in policies: whoever may list one folder could list all of them (4-storage)."""
START_S: Final = 15.0
STOP_S: Final = 8.0
FIRST_DELAY_S: Final = 0.2
LAST_DELAY_S: Final = 10.0
STEADY_S: Final = 30.0
LOOK_S: Final = 0.02
MAX_LOG: Final = 5 * 1024 * 1024
"""Bytes of its log; when it is started with a longer one, that is begun anew."""
ADMIN: Final = "admin.sock"
"""The socket at which it takes admin calls, in its folder."""

_VERSION: Final = re.compile(r"Version\s*:\s*v?(\d+)\.(\d+)")
_SAID: Final = re.compile(rb"mod\s+github\.com/versity/versitygw\s+v(\d+)\.(\d+)")
_SECRET: Final = "ROOT_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a variable
_log: Final = logging.getLogger(__name__)


def find(environment: Mapping[str, str]) -> str:
    """Return the path of the gateway's program. Raises BadSetting where there is none."""
    chosen = environment.get(VARIABLE)
    found = shutil.which(chosen or PROGRAM, path=None if chosen else environment.get("PATH"))
    if found is None:
        raise BadSetting(
            f"{shown(chosen)} ({VARIABLE}) is no program." if chosen else f"{PROGRAM} is not installed on this machine.",
            todo=f"Install {PROGRAM} 1.8 or newer (github.com/versity/versitygw) on PATH, or set {VARIABLE} to it.",
        )
    return str(Path(found).absolute())


def check_version(program: str) -> str:
    """Return what the program says its version is. Raises BadSetting below 1.8, or where it is another program.

    One that was built from source without a number is taken at the version that its builder wrote into it.
    """
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise BadSetting(f"{program} cannot be run: {error}.") from error
    if "Version" not in said:
        raise BadSetting(f"{program} is not {PROGRAM}.", todo=f"Set {VARIABLE} to the right program.")
    found = _VERSION.search(said)
    numbers = (int(found[1]), int(found[2])) if found else _built_from(program)
    if numbers is None or numbers < LEAST:
        what = f"version {numbers[0]}.{numbers[1]}" if numbers else "of an unknown version"
        raise BadSetting(
            f"{program} is {what}; 1.8 or newer is needed, because older ones do not keep one folder's names from another's "
            "people.",
            todo=f"Install a newer {PROGRAM}, or set {VARIABLE} to one.",
        )
    return f"{numbers[0]}.{numbers[1]}"


def _built_from(program: str) -> tuple[int, int] | None:
    """Return the version that the Go linker wrote into a program."""
    with contextlib.suppress(OSError), Path(program).open("rb") as file:
        behind = b""
        while piece := file.read(1 << 20):
            if found := _SAID.search(behind + piece):
                return int(found[1]), int(found[2])
            behind = piece[-200:]
    return None


def free_port(host: str) -> int:
    """Return a port of an address on which nobody listens now. Raises BadSetting where the address is none of this machine."""
    with _listening(host, 0) as probe:
        return int(probe.getsockname()[1])


def check_free(host: str, port: int) -> None:
    """Raise BadSetting where somebody else listens there already."""
    _listening(host, port).close()


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise BadSetting(f"{host} is no address of this machine: {error.strerror}.") from error
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen()
    except OSError as error:
        probe.close()
        if error.errno == errno.EADDRINUSE:
            raise BadSetting(
                f"Another program listens on {host}:{port} already, where this node's gateway is to listen.",
                todo="Stop that program, or join with another address: --listen HOST:PORT.",
            ) from error
        raise BadSetting(f"Nothing can listen on {host}:{port}: {error.strerror}.", todo="Choose another --listen.") from error
    return probe


class Gateway:
    """One gateway. ``folder`` is its own in the state directory, ``key`` the agent's; it outlives the agent by ``outlive_s``.

    ``answers`` asks it something that only this gateway can answer; ``clock`` gives Unix microseconds.
    """

    def __init__(
        self,
        folder: Path,
        serving: Serving,
        *,
        outlive_s: float,
        key: Key,
        program: Callable[[], str],
        answers: Callable[[], Awaitable[None]],
        clock: Callable[[], int],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self.folder = folder
        self.serving = serving
        self._outlive_s = outlive_s
        self._key = key
        self._program = program
        self._answers = answers
        self._clock = clock
        self._pause = pause
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self.events = ""
        """The address that it reports writes to; set before ``start``. It does not start while nobody listens there."""
        self.before: Callable[[], Awaitable[None]] | None = None
        """Called before every start, while none runs."""
        self.problem = ""
        """Why it does not run; empty while it does."""
        self.started: int | None = None
        """When it was last started, Unix microseconds."""
        self.starts = 0

    @property
    def buckets(self) -> Path:
        """The folder of links: one for each bucket."""
        return self.folder / "buckets"

    @property
    def accounts(self) -> Path:
        """Where it keeps its accounts."""
        return self.folder / "accounts"

    @property
    def sidecar(self) -> Path:
        """Where it keeps what it knows of objects and buckets."""
        return self.folder / "sidecar"

    @property
    def log(self) -> Path:
        """Its log."""
        return self.folder / "gateway.log"

    @property
    def admin(self) -> str:
        """The address of its admin calls: a socket in its folder."""
        return str(self.folder / ADMIN)

    def prepare(self) -> None:
        """Make its folders, for their owner alone. Raises BadSetting."""
        try:
            for folder in (self.folder, self.buckets, self.accounts, self.sidecar):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise BadSetting(f"{self.folder} cannot be used: {error.strerror}.", todo="Check who owns that folder.") from error

    # -------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Start it, and keep it running until ``stop``. Returns when it answers, or when ``problem`` says why it does not."""
        if self._keeping is None:
            self.problem = "it is being started"
            self._first.clear()
            self._keeping = asyncio.create_task(self._keep())
        await self._first.wait()

    async def stop(self) -> None:
        """End it."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        await self._end()
        self.problem = "it was stopped"
        self._first.set()

    def check(self) -> None:
        """Raise StorageUnreachable where it does not run, with the reason."""
        if self.problem:
            raise StorageUnreachable(f"The gateway of this node cannot be reached: {self.problem}")

    async def _keep(self) -> None:
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._run_once()
            except BadSetting as error:
                self.problem = error.message
            except OSError as error:
                self.problem = f"it cannot be started: {error.strerror}."
            finally:
                await self._end()
            self._first.set()
            if asyncio.get_running_loop().time() - began > STEADY_S:
                failures = 0
            _log.warning("the gateway does not run: %s", self.problem)
            await self._pause(min(FIRST_DELAY_S * 2**failures, LAST_DELAY_S))
            failures += 1

    async def _run_once(self) -> None:
        """Run it until it ends; leave the reason in ``problem``. Raises BadSetting, OSError."""
        await asyncio.to_thread(self._end_former)
        check_free(self.serving.host, self.serving.port)
        program = self._program()
        if self.before is not None:
            await self.before()
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > MAX_LOG:
                self.log.unlink()
        order = {
            "command": self._command(program),
            "environment": self._environment(),
            "folder": str(self.folder),
            "log": str(self.log),
            "lock": str(self._lock),
            "grace_s": self._outlive_s,
            "umask": 0o022,
        }
        began = self._clock()
        command = (sys.executable, "-I", "-S", keeper.__file__)
        with self.log.open("ab") as log:  # it may outlive the agent, and so must not hold what the agent writes to
            self._process = process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        if process.stdin is None:  # pragma: no cover - it was asked for
            raise OSError(errno.EPIPE, "no way to talk to it")
        process.stdin.write(json.dumps(order).encode() + b"\n")
        ended = asyncio.create_task(process.wait())
        try:
            if await self._wait_ready(ended):
                self.started, self.problem = began, ""
                self.starts += 1
                self._first.set()
                await asyncio.shield(ended)
        finally:
            ended.cancel()
        self.problem = f"it ended by itself ({process.returncode}): {self._last_words()}"

    async def _wait_ready(self, ended: asyncio.Task[int]) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while not ended.done():
                    with contextlib.suppress(StorageUnreachable):
                        await self._answers()
                        return True
                    await asyncio.sleep(LOOK_S)
        return False

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.stdin is not None:
            process.stdin.close()

    # -------------------------------------------------------------------------------------------------- details

    @property
    def _lock(self) -> Path:
        return self.folder / "keeper.lock"

    def _end_former(self) -> None:
        """End the keeper and gateway that a former agent left, if they still live: they hold the lock until they do not."""
        held = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            for number in os.pread(held, 100, 0).split()[:2]:
                with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
                    os.kill(int(number), signal.SIGTERM)
            fcntl.flock(held, fcntl.LOCK_EX)
        finally:
            os.close(held)

    def _command(self, program: str) -> list[str]:
        serving = self.serving
        host = f"[{serving.host}]" if ":" in serving.host else serving.host
        tls = ["--cert", serving.certificate, "--key", serving.certificate_key] if serving.certificate else []
        events = ["--event-webhook-url", self.events] if self.events else []
        owner = ["--chuid", "--chgid"] if serving.owner is not None else []
        return [
            *(program, "--port", f"{host}:{serving.port}", "--admin-port", f"{keeper.FOLDER}/{ADMIN}", "--socket-perm", "0600"),
            *("--region", serving.region, "--iam-dir", str(self.accounts), "--quiet", "--keep-alive", *tls, *events),
            *("posix", "--sidecar", str(self.sidecar), "--bucketlinks", *owner),
            *("--file-perms", f"{serving.file_mode:04o}", "--dir-perms", f"{serving.dir_mode:04o}"),
            str(self.buckets),
        ]

    def _environment(self) -> dict[str, str]:
        """Return what it is started with: no variable of the agent's can change how it runs."""
        return {
            "ROOT_ACCESS_KEY_ID": self._key.access_key,
            _SECRET: self._key.secret_key,
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "GOTRACEBACK": "single",
        }

    def _last_words(self) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 2000))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return shown(lines[-1] if lines else "it said nothing", 300)
