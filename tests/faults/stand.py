"""One whole wio with bad wires in it: the hub, a MinIO, its agent, and people; all real, each with its handle.

    agent --(to_hub)--> hub --(to_database, where it is PostgreSQL)--> database
    agent --(to_storage)--> liar --> MinIO <-- people

People reach hub and storage on wires of their own, which are good: what they are told is part of what is tested.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import asyncpg
from botocore.handlers import add_expect_header

from bench.rig import fetch_key, s3
from deploy.federation import PASSWORD, Agent, Hub
from deploy.programs import provide
from deploy.running import Minio, Program, until
from protocol.api import NewRoot, NodeState, RootKind
from protocol.digest import combine, object_number
from protocol.errors import WioError
from protocol.grants import Permission
from protocol.messages import ScanState
from protocol.sealing import ClearCredential
from tests.faults.lying import Liar
from tests.faults.wire import Wire
from tests.faults.work import FOLDER, Work, pour
from wio.client import Client

__all__ = ["NODE", "Place", "Stand", "Totals"]

NODE: Final = "lab3"
ROOT: Final = Path(__file__).parents[2]
START_S: Final = 120.0
HEAL_S: Final = 90.0
"""How long everything may take to agree again: an agent waits up to 4 s before it connects, and a storage server that lost
its settings is noticed by its audit stream after 20 s."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_OPENS: Final = {None: (False, False), Permission.READ: (True, False), Permission.WRITE: (True, True)}


@dataclass(frozen=True)
class Totals:
    """What somebody says a root holds."""

    objects: int
    bytes: int
    digest: int


def quietly(ask: Callable[[], bool]) -> Callable[[], bool]:
    """Return the question, answered no while the hub cannot answer."""

    def asked() -> bool:
        try:
            return ask()
        except WioError:
            return False

    return asked


def start(program: Program) -> None:
    """Start a program, on a machine that may be busy with all the others."""
    program.start_s = START_S
    program.start()


class Stand:
    """Enter it; ``heal`` puts everything back to work; ``check`` says whether all is as it must be."""

    def __init__(self, folder: Path, seed: int, *, database_url: str | None = None) -> None:
        self.folder = folder
        self.chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._stack = ExitStack()
        self._database_url = database_url
        self._places = 0
        self.grants: dict[str, Permission | None] = {}
        """What bob may do in each of alice's workspaces, as far as the hub has said; see ``share``."""
        self._unsure: set[str] = set()
        self.keys: list[ClearCredential] = []
        """Bob's keys that are out."""
        self.inside: dict[Program, Path] = {}
        """Programs that run in a mount namespace of their own, and where in it their folder is."""

    # -------------------------------------------------------------------------------------------------- life

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.hub = Hub(self.folder / "hub")
        self.to_hub = stack.enter_context(Wire(self.hub.port, web=True))
        settings = {"WIO_PUBLIC_NAME": self.to_hub.url}
        if self._database_url is not None:
            port = int(self._database_url.rpartition(":")[2].partition("/")[0])
            self.to_database = stack.enter_context(Wire(port))
            settings["WIO_DATABASE_URL"] = self._database_url.replace(f":{port}/", f":{self.to_database.port}/")
        self.hub.environment |= settings
        self.server = Minio(provide("minio"), self.folder / "minio")
        self.liar = stack.enter_context(Liar(self.server.port, self.chance))
        self.to_storage = stack.enter_context(Wire(self.liar.port))
        self.agent = Agent(NODE, self.folder / "agent")
        self._calm = {program: list(program.command) for program in self.programs}
        for program in (self.server, self.hub):
            stack.callback(program.stop)
            start(program)
        self.alice, self.bob = (stack.enter_context(self._person(name)) for name in ("alice", "bob"))
        self.join(self.agent)
        stack.callback(self.agent.stop)
        start(self.agent)
        self.wait_online()
        self.alice.create_root(NewRoot(NODE, "homes", RootKind.PRIVATE, "homes"))
        for name in ("first", "second", "third"):
            workspace = self.alice.create_workspace(name)
            self.owner().put_object(Bucket=workspace.bucket, Key=f"{workspace.prefix}sample", Body=name.encode())
            self.grants[name] = None
        self.share("first", Permission.READ)
        self.fetch_key("first")

    def _person(self, name: str) -> Client:
        with Client(self.hub.url) as stranger:
            token = stranger.register(f"{name}@lab.example", name, PASSWORD).token
        return Client(self.hub.url, token)

    def join(self, agent: Agent, *options: str) -> None:
        """Join a node with this agent, which reaches everything through the wires."""
        string = self.alice.invite(agent.name).join_string
        words = ("join", "-", "--s3", self.to_storage.url, "--public-endpoint", self.server.url, "--admin-env", *options)
        agent.ask(*words, environment=self.server.keys, stdin=string).good()

    def rejoin(self) -> None:
        """Join the node again as its owner does who has lost the state directory: with what the hub says."""
        invitation = self.alice.invite(NODE, replace=True)
        _, _, string, *rest = shlex.split(invitation.command)
        where = ("--s3", self.to_storage.url, "--public-endpoint", self.server.url, "--admin-env")
        self.agent.ask("join", "-", *where, *rest[2:], environment=self.server.keys, stdin=string).good()

    @property
    def programs(self) -> tuple[Program, ...]:
        """Storage, hub and agent."""
        return (self.server, self.hub, self.agent)

    def wait_online(self) -> None:
        """Wait until hub and agent have a session."""
        until(
            "the agent is connected",
            quietly(lambda: self.alice.node(NODE).state is NodeState.ONLINE),
            seconds=HEAL_S,
            every=0.05,
        )

    def wait_offline(self) -> None:
        """Wait until the hub knows that the agent is gone."""
        until("the agent is gone", quietly(lambda: self.alice.node(NODE).state is NodeState.OFFLINE), seconds=HEAL_S)

    # -------------------------------------------------------------------------------------------------- dying

    def doom(self, program: Hub | Agent, *points: str, ahead: Mapping[str, int] | None = None) -> None:
        """Start a program that is to die at the first of these points that it comes to, or whose clocks are ahead."""
        if program.running:
            program.stop()
        module, words = ("hub.cli", ["serve"]) if isinstance(program, Hub) else ("spoke_agent.cli", ["run"])
        flags = [word for point in points for word in ("--at", point)]
        flags += [word for name, much in (ahead or {}).items() for word in ("--ahead", f"{name}:{much}")]
        program.command = [sys.executable, "-m", "tests.faults.dying", *flags, "--", module, *words]
        program.environment["PYTHONPATH"] = str(ROOT)
        with program.log.open("a") as log:
            print(f"-- started with {' '.join(flags)}", file=log)
        ready, program.ready = program.ready, lambda: True  # type: ignore[method-assign]  # it may never get that far
        try:
            program.start()
        finally:
            program.ready = ready  # type: ignore[method-assign]  # as above

    def wait_dead(self, program: Program, *, seconds: float = 20) -> None:
        """Wait until a doomed program has died, and of nothing else; then let it be as it was."""
        process = program.process
        assert process is not None
        until(f"{program.command[0]} came to its end", lambda: process.poll() is not None, seconds=seconds)
        assert process.returncode == -signal.SIGKILL, f"it ended by itself with {process.returncode}"
        program.kill()
        program.command = list(self._calm[program])

    # -------------------------------------------------------------------------------------------------- healing

    def heal(self) -> None:
        """Make the wires good, storage honest, and everything run."""
        self.liar.lie = None
        for wire in (self.to_hub, self.to_storage, *([self.to_database] if self._database_url is not None else [])):
            wire.heal()
        for program in self.programs:
            if program.running and program.command != self._calm[program]:
                program.kill()
                self.inside.pop(program, None)
            program.command = list(self._calm[program])
            if not program.running:
                program.kill()
                start(program)
        self.wait_online()

    def said(self, lines: int = 25) -> str:
        """Return the end of every log, and what the wires did."""
        wires = f"to_hub {dict(self.to_hub.counted)}\nto_storage {dict(self.to_storage.counted)}\nlies {dict(self.liar.told)}"
        return "\n".join([wires, *(f"--- {program.log.name}\n{program.tail(lines)}" for program in self.programs)])

    # -------------------------------------------------------------------------------------------------- places

    def owner(self) -> Any:
        """Return S3 as the server's owner."""
        client = s3(ClearCredential(self.server.user, self.server.password, "", 0, self.server.url, "us-east-1"))
        # Else each put waits up to a second for the server to say "100 Continue", which on a busy machine is late.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client

    def place(self, what: str = "place", *, objects: int = 0) -> Place:
        """Make a bucket, a root over it and a workspace in it; wait until its first scan is done and settled."""
        self._places += 1
        place = Place(self, f"{what.replace('_', '-')[:24].strip('-')}-{self._places}")
        self.owner().create_bucket(Bucket=place.name)
        place.fill(objects)
        self.alice.create_root(NewRoot(NODE, place.name, RootKind.UNMANAGED_PRIVATE, place.name, accept_visible_names=True))
        self.alice.create_workspace(place.name, root=f"{NODE}/{place.name}", folder=FOLDER)
        until(f"{place.name} is scanned", quietly(lambda: place.scan_state is ScanState.DONE), seconds=HEAL_S, every=0.05)
        if objects:
            place.settled()
        return place

    # -------------------------------------------------------------------------------------------------- access

    def share(self, name: str, permission: Permission | None) -> None:
        """Let bob do this, or nothing, in a workspace. Where the answer is lost, the hub is asked once it is back."""
        try:
            if permission is not None:
                self.alice.share(name, "bob", permission)
            elif self.grants[name] is not None or name in self._unsure:
                self.alice.unshare(name, "bob")
        except WioError:
            self._unsure.add(name)
        else:
            self.grants[name] = permission
            self._unsure.discard(name)

    def reshare(self, chance: random.Random) -> None:
        """Change something about what bob may do."""
        name = chance.choice(list(self.grants))
        others = [one for one in (None, Permission.READ, Permission.WRITE) if one is not self.grants[name]]
        self.share(name, chance.choice(others))

    def fetch_key(self, name: str) -> bool:
        """Let bob get a key, if that works just now."""
        try:
            key, _ = fetch_key(self.bob, f"alice/{name}")
        except WioError:
            return False
        self.keys.append(key)
        return True

    def check_access(self, *, exactly: bool = True) -> None:
        """Every key that is out opens what the hub says bob may do, and no more; not ``exactly``: no more."""
        for name in self._unsure:
            shares = [one.permission for one in self.alice.shares(name) if one.who == "bob"]
            self.grants[name] = shares[0] if shares else None
        self._unsure.clear()
        wanted = {name: _OPENS[permission] for name, permission in self.grants.items()}
        places = {one.name: (one.bucket, one.prefix) for one in self.alice.workspaces("mine")}
        clients = [s3(key) for key in self.keys[-3:]]
        found: list[dict[str, tuple[bool, bool]]] = []

        def agrees() -> bool:
            found[:] = [{name: _opens(client, *places[name]) for name in wanted} for client in clients]
            return all(
                one[name] == wanted[name]
                if exactly
                else all(has <= may for has, may in zip(one[name], wanted[name], strict=True))
                for one in found
                for name in wanted
            )

        try:
            until("every key opens what the grants say", agrees, seconds=HEAL_S, every=0.2)
        except TimeoutError:
            raise AssertionError(f"(read, write) of bob's keys are {found}, the grants say {wanted}") from None

    def opens(self, key: ClearCredential) -> bool:
        """Say whether a key opens anything of alice's workspaces, for reading or writing."""
        client, places = s3(key), self.alice.workspaces("mine")
        return any(any(_opens(client, one.bucket, one.prefix)) for one in places if one.name in self.grants)

    # -------------------------------------------------------------------------------------------------- books

    def hub_rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the hub's database. ``sql`` has ``?`` for values."""
        if self._database_url is None:
            return self._rows(self.hub, "hub.sqlite", sql, values)
        return asyncio.run(_asked(self._database_url, sql, values))

    def hub_write(self, sql: str, *values: object) -> None:
        """Change the hub's SQLite database behind its back."""
        with closing(sqlite3.connect(self.hub.data / "hub.sqlite", timeout=30)) as connection, connection:
            connection.execute(sql, values)

    def agent_rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the agent's index."""
        return self._rows(self.agent, "index.sqlite", sql, values)

    def _rows(self, program: Program, name: str, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        if program not in self.inside:
            return _selected(str(_home(program) / name), sql, values)
        # SQLite itself follows the link /proc/…/root, and so ends up outside: it has to be asked inside.
        who = ["--target", str(program.pid), "--mount", *(["--user"] if os.geteuid() else [])]
        call = ["nsenter", *who, "--", sys.executable, "-c", _ASK, str(self.inside[program] / name), sql, json.dumps(values)]
        said = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
        if said.returncode:
            raise sqlite3.OperationalError(said.stderr.strip()[-300:])
        return [tuple(row) for row in json.loads(said.stdout)]

    def keep(self, program: Program, kept: Path) -> None:
        """Copy what a program has on disk, while it does not run."""
        program.stop()
        shutil.copytree(_home(program), kept, symlinks=True)
        start(program)

    def restore(self, program: Program, kept: Path) -> None:
        """Put a program's folder back to that copy, while it does not run."""
        program.stop()
        shutil.rmtree(_home(program))
        shutil.copytree(kept, _home(program), symlinks=True)


def _selected(file: str, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(sql, values).fetchall()


_ASK: Final = (
    "import json, sqlite3, sys\n"
    "file, sql, values = sys.argv[1:]\n"
    "connection = sqlite3.connect(f'file:{file}?mode=ro', uri=True, timeout=10)\n"
    "print(json.dumps(connection.execute(sql, json.loads(values)).fetchall()))\n"
)


def _home(program: Program) -> Path:
    if isinstance(program, Agent):
        return program.state
    assert isinstance(program, Hub | Minio)
    return program.data


async def _asked(url: str, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    for number in range(len(values)):
        sql = sql.replace("?", f"${number + 1}", 1)
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return [tuple(row) for row in await connection.fetch(sql, *values)]
    finally:
        await connection.close()


def _opens(client: Any, bucket: str, prefix: str) -> tuple[bool, bool]:
    """Say whether a key may read and write in a workspace, by doing it."""

    def may(call: Callable[..., Any], **what: Any) -> bool:
        try:
            call(Bucket=bucket, Key=f"{prefix}sample", **what)
        except client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
            return False
        return True

    return may(client.get_object), may(client.put_object, Body=b"sample")


@dataclass
class Place:
    """A bucket with a root over it."""

    stand: Stand
    name: str
    seen: list[str] = field(default_factory=list)

    @property
    def scan_state(self) -> ScanState | None:
        """Where its last scan stands, as the hub has it."""
        return self.stand.alice.scan_status(NODE, self.name).state

    def work(self, chance: random.Random, **options: Any) -> Work:
        """Return people who work here."""
        return Work(self.stand.owner, self.name, chance, **options)

    def fill(self, objects: int, *, folder: str = "filled") -> list[str]:
        """Put so many small objects at once; return their keys."""
        keys = [f"{FOLDER}{folder}/sub-{number % 13:02}/file-{number:06}" for number in range(objects)]
        for start in range(0, objects, 5000):
            pour(self.stand.owner(), self.name, keys[start : start + 5000])
        return keys

    def empty(self, keys: list[str]) -> None:
        """Delete these, a thousand in a request: the server names each of them in its event."""
        for start in range(0, len(keys), 1000):
            doomed = [{"Key": key} for key in keys[start : start + 1000]]
            self.stand.owner().delete_objects(Bucket=self.name, Delete={"Objects": doomed, "Quiet": True})

    def scan(self) -> None:
        """Have it scanned."""
        until("a scan is begun", quietly(lambda: self.stand.alice.scan(NODE, self.name) is not None), seconds=HEAL_S)

    def stored(self) -> dict[str, tuple[int, int, str]]:
        """Return every key of the bucket with size, time in Unix nanoseconds and etag, as S3 lists them."""
        pages = self.stand.owner().get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return dict(_read(pages))

    def catalogued(self) -> list[tuple[str, int, int, str]]:
        """Return every live row of the hub's database."""
        live = "FROM entries e JOIN roots r ON r.id = e.root_id WHERE r.name = ? AND NOT e.gone"
        return self.stand.hub_rows(f"SELECT e.key, e.size, e.mtime, e.etag {live}", self.name)

    def difference(self) -> str:
        """Say the first thing in which bucket, catalogue, agent and search differ; empty where they agree."""
        stored, rows = self.stored(), self.catalogued()
        catalogue = {key: content for key, *content in rows}
        assert len(rows) == len(catalogue), "a key is catalogued twice"
        lacking = [key for key in stored if key not in catalogue]
        surplus = [key for key in catalogue if key not in stored]
        other = [key for key in stored if key in catalogue and tuple(catalogue[key]) != stored[key]]
        if lacking or surplus or other:
            first = (lacking or surplus or other)[0]
            counts = f"{len(lacking)} lacking, {len(surplus)} surplus, {len(other)} other of {len(stored)}"
            return f"catalogue: {counts}, first {first!r}: {stored.get(first)} is catalogued as {catalogue.get(first)}"
        truth = Totals(
            len(stored),
            sum(size for size, _, _ in stored.values()),
            combine(0, added=(object_number(key, *content) for key, content in stored.items())),
        )
        [[root, *hub]] = self.stand.hub_rows("SELECT id, objects, bytes, digest FROM roots WHERE name = ?", self.name)
        [agent] = self.stand.agent_rows("SELECT objects, bytes, digest FROM root WHERE root = ?", root) or [(0, 0, 0)]
        for who, what in (("the hub", Totals(*hub)), ("the agent", Totals(*agent))):
            if what != truth:
                return f"totals: {who} says {what}, the bucket is {truth}"
        pending = self.stand.agent_rows("SELECT sequence - acknowledged FROM state")
        if pending != [(0,)]:
            return f"journal: {pending} rows are not acknowledged"
        mine = sum(key.startswith(FOLDER) for key in stored)
        found = self.stand.alice.search(f"in:{self.name}").total
        return "" if found == mine else f"search: finds {found} of {mine}"

    def settled(self, *, seconds: float = HEAL_S) -> None:
        """Wait until everybody agrees on what is here."""
        last = "nothing was looked at"

        def agrees() -> bool:
            nonlocal last
            try:
                last = self.difference()
            except (WioError, sqlite3.OperationalError) as error:
                last = str(error)
            return not last

        try:
            until(f"{self.name} is quiet", agrees, seconds=seconds, every=0.1)
        except TimeoutError:
            raise AssertionError(f"after {seconds:g} s: {last}") from None


def _read(pages: Iterator[dict[str, Any]]) -> Iterator[tuple[str, tuple[int, int, str]]]:
    for page in pages:
        for one in page.get("Contents", ()):
            nanoseconds = (one["LastModified"] - _EPOCH) // dt.timedelta(microseconds=1) * 1000
            yield one["Key"], (one["Size"], nanoseconds, one.get("ETag", "").strip('"'))
