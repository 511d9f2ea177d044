"""The person who runs the command: their session, opened when a command needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wio.session import Session


@contextmanager
def session() -> Iterator[Session]:
    """Open the session of whoever runs this; raise NotSignedIn with what to do."""
    from wio.session import Session  # noqa: PLC0415  - brings httpx and cryptography, which help does without

    with Session.here() as here:
        yield here
