"""A whole wio for tests: the hub, a MinIO, its agent, and people, all real, in a folder of the test's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.rig import Rig
from deploy.federation import Federation
from protocol.api import NewRoot, RootKind
from wio.client import Client


@pytest.fixture
def new_federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Start hubs of a test's own."""
    with ExitStack() as stack:

        def start(name: str = "wio", **options: Any) -> Federation:
            return stack.enter_context(Federation(tmp_path / name, **options))

        yield start


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One node, lab3, owned by alice, with a private root; bob has an account. Shared by the tests of a module."""
    with Federation(tmp_path_factory.mktemp("wio")) as federation:
        made = Rig(federation)
        yield made
        made.close()


@dataclass
class Catalogue:
    """What the hub's database and search index say of a root, beside what the bucket holds."""

    rig: Rig
    root: str
    bucket: str
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.rig.alice

    def create(self) -> None:
        """Make the root over the existing bucket."""
        self.client.create_root(NewRoot("lab3", self.root, RootKind.UNMANAGED_PRIVATE, self.bucket, accept_visible_names=True))

    def stored(self) -> dict[str, tuple[int, str]]:
        """Return every key of the bucket with its size and etag, as S3 lists them."""
        pages = self.rig.root_client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {one["Key"]: (one["Size"], one["ETag"].strip('"')) for page in pages for one in page.get("Contents", ())}

    def catalogued(self) -> list[tuple[str, int, str]]:
        """Return every live row of the hub's database."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return connection.execute(
                "SELECT entries.key, size, etag FROM entries JOIN roots ON roots.id = root_id "
                "WHERE roots.name = ? AND NOT gone",
                (self.root,),
            ).fetchall()

    def counted(self) -> int:
        """Count the live rows of the hub's database; cheap enough to ask again and again."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            found = connection.execute(
                "SELECT count(*) FROM entries JOIN roots ON roots.id = root_id WHERE roots.name = ? AND NOT gone", (self.root,)
            )
            return int(found.fetchone()[0])

    @property
    def database(self) -> Path:
        """The hub's SQLite file."""
        return self.rig.federation.hub.data / "hub.sqlite"

    def check(self) -> None:
        """Bucket, catalogue, totals and digest agree: nothing missing, nothing twice."""
        stored = self.stored()
        rows = self.catalogued()
        assert len(rows) == len({key for key, _, _ in rows}), "a key is there twice"
        assert {key: (size, etag) for key, size, etag in rows} == stored
        root = self.client.root("lab3", self.root)
        assert (root.objects, root.bytes) == (len(stored), sum(size for size, _ in stored.values()))


@pytest.fixture
def catalogue() -> Callable[[Rig, str, str], Catalogue]:
    return Catalogue
