"""A hub that answers what a test recorded, and the command signed in there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.wio.standins import ALICE, SIGNED_IN, RecordedHub
from wio.cli import app
from wio.config import Account, Config


@pytest.fixture
def hub() -> Iterator[RecordedHub]:
    """A hub that answers what a test recorded."""
    server = RecordedHub()
    yield server
    server.stop()


@pytest.fixture
def wio(hub: RecordedHub, tmp_path: Path) -> Callable[..., Result]:
    """Run `wio …` as alice, signed in at the recorded hub."""
    environment = {"WIO_CONFIG": str(tmp_path / "config"), "COLUMNS": "100", "NO_COLOR": "1", "TZ": "UTC"}
    Config(tmp_path / "config", {}).remember(
        hub.url, Account(SIGNED_IN.token, ALICE.username, ALICE.email, SIGNED_IN.expires_at)
    )

    def run(*words: str, stdin: str | None = None, **more: str) -> Result:
        nothing = dict.fromkeys(("WIO_HUB", "WIO_TOKEN", "WIO_PASSWORD", "WIO_DEBUG"))
        return CliRunner().invoke(app, list(words), input=stdin, env={**nothing, **environment, **more})

    return run
