"""A whole wio with two storage nodes, and people whose tools get their keys from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zarr.core.sync

from bench.rig import s3
from deploy.federation import BIN, Federation, Person, run
from protocol.api import NewRoot, RootKind
from protocol.names import Layout
from protocol.sealing import ClearCredential
from tests.tools.drivers import Spot
from wio.client import Client
from wio.config import Config, Seat
from wio.fs import WioFileSystem
from wio.s3 import locate
from wio.session import Session

KINDS = ("minio",)
"""Kinds of node that every tool is tried on; a kind joins when ``deploy.federation`` can start it."""


@dataclass
class World:
    """alice owns lab3 and nas; ``scans`` and ``more`` lie on lab3, ``store`` on nas, each in folders of one bucket, and
    ``whole`` in a bucket of its own on lab3. bob has an account.
    """

    federation: Federation
    kind: str

    def __post_init__(self) -> None:
        self.alice = self.federation.person("alice")
        self.bob = self.federation.person("bob")
        self.client = Client(self.federation.hub.url, self.alice.token)
        for node, root, layout in (
            ("lab3", "homes", Layout.PREFIX),
            ("lab3", "boxes", Layout.BUCKET),
            ("nas", "cellar", Layout.PREFIX),
        ):
            if node not in self.federation.agents:
                self.federation.node(node, self.alice)
            if layout is Layout.PREFIX:
                self.owner(node).create_bucket(Bucket=root)
            new = NewRoot(node, root, RootKind.PRIVATE, root, layout=layout, accept_visible_names=True)
            self.client.create_root(new)
        for name, root in (("scans", "lab3/homes"), ("more", "lab3/homes"), ("whole", "lab3/boxes"), ("store", "nas/cellar")):
            self.client.create_workspace(name, root=root)

    def owner(self, node: str) -> Any:
        """Return S3 as the owner of a node's server has it."""
        server = self.federation.servers[node]
        return s3(ClearCredential(server.user, server.password, "", 0, server.url, "us-east-1"))

    def spot(self, path: str) -> Spot:
        """Return a folder of alice's with where it lies."""
        with self.session(self.alice) as session:
            place = locate(path, session=session)
        return Spot(path, place.node, place.endpoint, place.bucket, place.key)

    def session(self, person: Person) -> Session:
        """Return a person's session, as a program of theirs has it."""
        return Session(Config(person.folder, {}), Seat(self.federation.hub.url, person.token, person.username))

    def environment(self, person: Person) -> dict[str, str]:
        """Return what a program of this person's runs in: nobody else's keys and settings, and a home of its own."""
        home = person.folder / "home"
        home.mkdir(exist_ok=True)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_", "RESTIC_", "WIO_"))
        }
        return {**kept, **person.environment, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}


@pytest.fixture(scope="session", params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The federation that tests of tools share; each test writes below a folder of its own."""
    with Federation(tmp_path_factory.mktemp("tools")) as federation:
        made = World(federation, request.param)
        yield made
        made.client.close()


@pytest.fixture
def as_alice(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The test itself is a program of alice's: libraries find her settings as they would in her own."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in world.environment(world.alice).items():
        if name.startswith(("WIO_", "XDG_")) or name == "HOME":
            monkeypatch.setenv(name, value)
    yield world
    for one in list(WioFileSystem._cache.values()):
        if one.asynchronous:
            zarr.core.sync.sync(one.aclose())  # zarr's own loop, in which nobody else makes one
        else:
            one.close()
    WioFileSystem.clear_instance_cache()


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """A folder's name of the test's own."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-")[:60]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A sparse file, large enough for several parts: 64 MiB, 1 GiB where WIO_SOAK is set. Its ends and middle are not zero."""
    size = 1 << (30 if os.environ.get("WIO_SOAK") else 26)
    path = tmp_path / "big.bin"
    with path.open("wb") as file:
        file.truncate(size)
        for at in (0, size // 2, size - 4):
            file.seek(at)
            file.write(b"here")
    return path


@pytest.fixture
def set_up(world: World) -> Callable[..., None]:
    """Set up a tool for alice with ``wio tools setup``, in her own home."""

    def setup(tool: str, *paths: str) -> None:
        said = run(
            [BIN / "wio", "tools", "setup", tool, *(paths or ("scans", "more", "whole", "store"))],
            world.environment(world.alice),
        )
        said.good()

    return setup
