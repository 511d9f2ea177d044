"""Which hub a person uses and who they are there: one small file, ``config.json``, in the configuration directory.

The directory is the platform's own for ``wio``, or ``WIO_CONFIG``. Several hubs may be known; one is the usual one.
``WIO_HUB`` chooses another hub for one command and ``WIO_TOKEN`` another person; a token is only ever sent to the hub that
gave it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import platformdirs

from protocol.errors import BadSetting, NotSignedIn
from protocol.names import shown
from wio import private

_FILE: Final = "config.json"


class Account(msgspec.Struct, frozen=True):
    """Who a person is on one hub. ``expires_at`` in Unix microseconds. ``repr`` does not show the token."""

    token: str
    username: str
    email: str
    expires_at: int

    def __repr__(self) -> str:
        return f"Account({self.username})"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. ``hub`` is the usual one; ``hubs`` goes by address, in the form ``client.hub_address`` gives."""

    hub: str | None = None
    hubs: dict[str, Account] = {}


class Seat(msgspec.Struct, frozen=True):
    """One hub and whose token to show there. ``username`` is empty if only the token is known. ``repr`` hides the token."""

    hub: str
    token: str
    username: str = ""

    def __repr__(self) -> str:
        return f"Seat({self.username or '?'} at {self.hub})"


class Config:
    """The configuration directory: what a command reads and what login and logout change."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self._environment = environment

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None) -> Config:
        """Return the configuration of whoever runs this."""
        environment = os.environ if environment is None else environment
        chosen = environment.get("WIO_CONFIG")
        return cls(Path(chosen).expanduser() if chosen else platformdirs.user_config_path("wio"), environment)

    @property
    def pins(self) -> Path:
        """Where the keys of known nodes are kept."""
        return self.directory / "nodes.json"

    def settings(self) -> Settings:
        """Read the file; raise BadSetting if it cannot be read."""
        content = private.read(self.directory / _FILE)
        if content is None:
            return Settings()
        try:
            return msgspec.json.decode(content, type=Settings)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadSetting(
                f"{shown(str(self.directory / _FILE))} cannot be read: {error}.", todo="Remove it and sign in again: wio login."
            ) from error

    def hub(self, asked: str | None = None) -> str:
        """Return the hub to use: ``asked``, else WIO_HUB, else the usual one; raise NotSignedIn where none is known."""
        from wio.client import hub_address  # noqa: PLC0415  - httpx is slow to load and help does not need it

        chosen = asked or self._environment.get("WIO_HUB") or self.settings().hub
        if not chosen:
            raise NotSignedIn("No hub is known here.", todo="Say which: wio login --hub URL, or set WIO_HUB.")
        return hub_address(chosen)

    def account(self, hub: str) -> Account | None:
        """Return who one is on a hub, as far as the file knows."""
        return self.settings().hubs.get(hub)

    def seat(self) -> Seat:
        """Return the hub and token a command uses; raise NotSignedIn with what to do."""
        hub, token = self.hub(), self._environment.get("WIO_TOKEN")
        account = self.account(hub)
        if token:
            return Seat(hub, token, account.username if account and account.token == token else "")
        if account is None:
            raise NotSignedIn(f"You are not signed in at {hub}.", todo=f"wio login --hub {hub}")
        return Seat(hub, account.token, account.username)

    def remember(self, hub: str, account: Account) -> None:
        """Keep who one is on a hub, and make it the usual one."""
        path = self.directory / _FILE
        with private.locked(path):
            private.write(path, _encode(Settings(hub, self.settings().hubs | {hub: account})))

    def forget(self, hub: str) -> None:
        """Forget who one is on a hub; it stays the usual one, so that ``wio login`` needs no address."""
        path = self.directory / _FILE
        with private.locked(path):
            settings = self.settings()
            left = {address: account for address, account in settings.hubs.items() if address != hub}
            private.write(path, _encode(Settings(settings.hub, left)))


def _encode(settings: Settings) -> bytes:
    return msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"
