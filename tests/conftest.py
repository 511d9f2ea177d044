"""Real servers for tests: started on free loopback ports, one of each kind per test process, stopped by their handles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.programs import cache, provide
from deploy.running import Minio

if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    # Tests start programs of ours hundreds of times, each of which would be compiled anew: 4 s for a hub instead of 1.5.
    os.environ["PYTHONPYCACHEPREFIX"] = str(cache() / "pycache")


@pytest.fixture(scope="session")
def mc() -> Path:
    """The real mc."""
    return provide("mc")


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    """A running MinIO that tests share: each test uses buckets of its own and never stops it."""
    with Minio(provide("minio"), tmp_path_factory.mktemp("minio") / "data") as server:
        yield server


@pytest.fixture
def new_minio(tmp_path: Path) -> Iterator[Callable[[str], Minio]]:
    """Start MinIO servers of a test's own, for tests that stop or restart them."""
    started: list[Minio] = []

    def start(name: str = "minio") -> Minio:
        server = Minio(provide("minio"), tmp_path / name)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()
