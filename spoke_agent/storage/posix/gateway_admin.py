"""The gateway's admin calls that wio uses: accounts made and ended. They are for the gateway's own key, on a way of its own.

An answer that lists accounts shows their secrets in plain: only names are taken out of it, and nothing of it is logged.
"""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import escape

from spoke_agent.storage.connection import Connection, Reply, refusal
from spoke_agent.storage.posix.serving import Owner
from spoke_agent.storage.sigv4 import Key

_ACCESS: Final = re.compile(rb"<Access>([^<]{1,200})</Access>")
EXISTS: Final = "XAdminUserExists"


class GatewayAdmin:
    """Accounts of the gateway. ``owner``: whom the files they upload are given to; None: to whom the gateway runs as."""

    def __init__(self, connection: Connection, key: Key, owner: Owner | None) -> None:
        self._connection = connection
        self._key = key
        self._owner = owner

    async def create(self, access_key: str, secret_key: str) -> None:
        """Make an account. It opens nothing before a policy names it."""
        owner = self._owner or Owner(0, 0)
        numbers = f"<UserID>{owner.uid}</UserID><GroupID>{owner.gid}</GroupID><ProjectID>0</ProjectID>"
        body = f"<Access>{escape(access_key)}</Access><Secret>{escape(secret_key)}</Secret><Role>user</Role>{numbers}"
        await self._done("make an account", "/create-user", (), f"<Account>{body}</Account>")
        if self._owner is not None:
            # Until this call the gateway, which keeps a new account in memory without them, writes its files as uid 0.
            props = f"<MutableProps><UserID>{owner.uid}</UserID><GroupID>{owner.gid}</GroupID></MutableProps>"
            await self._done("complete an account", "/update-user", [("access", access_key)], props)

    async def delete(self, access_key: str) -> None:
        """End an account: its key is dead when this returns. Fine if it is not there."""
        await self._done("end an account", "/delete-user", [("access", access_key)])

    async def names(self) -> list[str]:
        """Return the access keys of all accounts."""
        reply = await self._done("list its accounts", "/list-users")
        return [found.decode(errors="replace") for found in _ACCESS.findall(reply.body)]

    async def _done(self, what: str, path: str, query: tuple[()] | list[tuple[str, str]] = (), body: str = "") -> Reply:
        reply = await self._connection.ask(self._key, "PATCH", path, query, body.encode())
        if not reply.ok:
            raise refusal(reply, what, secret=True)
        return reply
