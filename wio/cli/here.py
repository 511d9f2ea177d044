"""The person who runs the command: their session, opened when a command needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wio.session import Session


@contextmanager
def session(hub: str | None = None) -> Iterator[Session]:
    """Open the session of whoever runs this, at ``hub`` if given; raise NotSignedIn with what to do."""
    from wio.session import Session  # noqa: PLC0415  - brings httpx and cryptography, which help does without

    with Session.here() if hub is None else Session.here({**os.environ, "WIO_HUB": hub}) as here:
        yield here
