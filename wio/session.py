"""A signed-in person on this machine: the client of their hub and their storage keys, each made when first used."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Self

from wio.client import Client
from wio.config import Config, Seat

if TYPE_CHECKING:
    from wio.credentials import Keys
    from wio.pins import Pins


class Session:
    """What a command or a program works with. Close it, or use it in a ``with``. ``clock`` gives Unix seconds."""

    def __init__(self, config: Config, seat: Seat, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.seat = seat
        self.clock = clock

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the session of whoever runs this; raise NotSignedIn with what to do."""
        config = Config.here(environment)
        return cls(config, config.seat())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        if "client" in self.__dict__:
            self.client.close()

    @cached_property
    def client(self) -> Client:
        """The hub."""
        return Client(self.seat.hub, self.seat.token)

    @cached_property
    def pins(self) -> Pins:
        """The keys of the nodes of this hub, as seen before."""
        from wio.pins import Pins  # noqa: PLC0415  - brings cryptography, which most commands do without

        return Pins(self.config.pins, self.seat.hub)

    @cached_property
    def keys(self) -> Keys:
        """This person's storage keys."""
        from wio.credentials import Keys, keys_file  # noqa: PLC0415  - brings cryptography, which most commands do without

        path = self.config.directory / "keys" / keys_file(self.seat.hub, self.seat.token)
        return Keys(self.client.credentials, path, self.pins, clock=self.clock)
