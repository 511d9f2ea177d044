"""A whole wio on loopback: a hub, storage nodes with their agents, people with their settings. All of it is the real thing.

Used by the demo, the integration tests and the benchmarks. Commands are run as a person runs them: as programs, with
nothing but what is in their environment and their own configuration folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from deploy.programs import provide
from deploy.running import Minio, Program, answers, free_port, until

BIN: Final = Path(sys.executable).parent
PASSWORD: Final = "correct horse battery"  # noqa: S105 - of people who exist for a minute


@dataclass(frozen=True)
class Said:
    """What a command said and how it ended."""

    command: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The answer of a command that was given ``--json``."""
        return json.loads(self.out)

    def good(self) -> Self:
        """Return itself if the command succeeded; raise AssertionError with everything it said otherwise."""
        if self.code != 0:
            raise AssertionError(f"{' '.join(self.command)} ended with {self.code}:\n{self.out}{self.err}")
        return self


def run(command: Sequence[str | Path], environment: dict[str, str], *, stdin: str = "", seconds: float = 120) -> Said:
    """Run a command to its end."""
    words = tuple(str(part) for part in command)
    done = subprocess.run(
        words, env=os.environ | environment, input=stdin, capture_output=True, text=True, timeout=seconds, check=False
    )
    return Said(words, done.returncode, done.stdout, done.stderr)


class Hub(Program):
    """`wio-hub serve` on a data directory."""

    def __init__(self, data: Path, *, environment: dict[str, str] | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = data
        self.settings = {"WIO_DATA": str(data), "WIO_PORT": str(self.port), **(environment or {})}
        super().__init__([BIN / "wio-hub", "serve"], log=data.with_name(data.name + ".log"), environment=self.settings)

    def ready(self) -> bool:
        """Whether it serves."""
        return answers(self.url, "/api/v1/health")


class Person:
    """Somebody at a terminal: a configuration folder of their own."""

    def __init__(self, hub_url: str, username: str, folder: Path) -> None:
        self.username = username
        self.email = f"{username}@lab.example"
        self.folder = folder
        self.environment = {
            "WIO_CONFIG": str(folder),
            "WIO_HUB": hub_url,
            "WIO_PASSWORD": PASSWORD,
            "COLUMNS": "120",
            "WIO_MC": str(provide("mc")),
        }

    def wio(self, *words: str | Path, seconds: float = 120, stdin: str = "") -> Said:
        """Run `wio …` as this person."""
        return run([BIN / "wio", *words], self.environment, seconds=seconds, stdin=stdin)

    def register(self) -> Self:
        """Make the account and sign in."""
        self.wio("register", self.email, self.username).good()
        return self

    @property
    def token(self) -> str:
        """The token in this person's settings, for programs that use the client library."""
        settings = json.loads((self.folder / "config.json").read_text())
        return str(settings["hubs"][settings["hub"]]["token"])


class Agent(Program):
    """`wio-agent run` on a state directory."""

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.state = state
        self.settings = {"WIO_AGENT_STATE": str(state), "COLUMNS": "120"}
        super().__init__([BIN / "wio-agent", "run"], log=state.with_name(state.name + ".log"), environment=self.settings)

    def ask(self, *words: str | Path, environment: dict[str, str] | None = None, stdin: str = "") -> Said:
        """Run `wio-agent …` on the same state directory."""
        return run([BIN / "wio-agent", *words], self.settings | (environment or {}), stdin=stdin)


class Federation:
    """One hub and whatever joins it, all below one folder. Stops everything it started, in the right order."""

    def __init__(self, folder: Path, *, hub_environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.hub = Hub(folder / "hub", environment=hub_environment)
        self.people: dict[str, Person] = {}
        self.servers: dict[str, Minio] = {}
        self.agents: dict[str, Agent] = {}

    def __enter__(self) -> Self:
        self.hub.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop agents, storage servers and the hub."""
        for program in (*self.agents.values(), *self.servers.values(), self.hub):
            program.stop()

    def person(self, username: str) -> Person:
        """Return a person, registered when first asked for."""
        if username not in self.people:
            self.people[username] = Person(self.hub.url, username, self.folder / f"person-{username}").register()
        return self.people[username]

    def server(self, name: str) -> Minio:
        """Return a running MinIO, started when first asked for."""
        if name not in self.servers:
            self.servers[name] = Minio(provide("minio"), self.folder / f"minio-{name}")
            self.servers[name].start()
        return self.servers[name]

    def node(self, name: str, owner: Person) -> Agent:
        """Join a node of this owner and run its agent until the hub sees it online."""
        agent = self.join(name, owner)
        agent.start()
        self.wait_online(name, owner)
        return agent

    def join(self, name: str, owner: Person) -> Agent:
        """Invite and join a node; its agent does not run yet."""
        server = self.server(name)
        agent = self.agents[name] = Agent(name, self.folder / f"agent-{name}")
        invitation = owner.wio("node", "invite", name, "--json").good().json
        agent.ask(
            "join", "-", "--s3", server.url, "--admin-env", environment=server.keys, stdin=invitation["join_string"]
        ).good()
        return agent

    def directory(self, name: str, owner: Person, tree: Path, *options: str | Path, outlive_s: float = 0) -> Agent:
        """Join a directory node of this owner that serves ``tree``, and run its agent until the hub sees it online."""
        agent = self.agents[name] = Agent(name, self.folder / f"agent-{name}")
        agent.settings |= {"WIO_VERSITYGW": str(provide("versitygw")), "WIO_AGENT_KEYS_OUTLIVE_S": str(outlive_s)}
        agent.environment |= agent.settings
        invitation = owner.wio("node", "invite", name, "--json").good().json
        agent.ask("join", "-", "--directory", tree, *options, stdin=invitation["join_string"]).good()
        agent.start()
        self.wait_online(name, owner)
        return agent

    def wait_online(self, name: str, owner: Person, *, seconds: float = 15) -> None:
        """Wait until the hub has the node online."""

        def online() -> bool:
            said = owner.wio("node", "show", name, "--json")
            return said.code == 0 and said.json["state"] == "online"

        until(f"node {name} online", online, seconds=seconds)
