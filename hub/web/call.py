"""One request as the handlers see it: who asks, from where, what they sent, and the services that answer.

This is a request class and not a set of injected dependencies because a key request has to cost little more than the
storage server's own part of it: nothing is resolved per request that the handler does not ask for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from hub.services.ports import Actor
from protocol.api import HubInfo
from protocol.errors import BadInput, NotSignedIn
from protocol.names import shown

if TYPE_CHECKING:
    from hub.metrics import Metrics
    from hub.services.accounts import Accounts
    from hub.services.alarms import Alarms
    from hub.services.assertions import Assertions
    from hub.services.audit import Audit
    from hub.services.credentials import Issuing
    from hub.services.details import Details
    from hub.services.enrolment import Enrolment
    from hub.services.groups import Groups
    from hub.services.health import HubHealth
    from hub.services.history import History
    from hub.services.links import Links
    from hub.services.quotas import Quotas
    from hub.services.requests import Requests
    from hub.services.root_changes import RootChanges
    from hub.services.roots import Roots
    from hub.services.searching import Searching
    from hub.services.settling import Settling
    from hub.services.sharing import Sharing
    from hub.services.verifying import Verifying
    from hub.services.watching import Watching
    from hub.services.why import Explaining
    from hub.services.workspace_changes import WorkspaceChanges
    from hub.services.workspaces import Workspaces

OPEN: Final = "open"
"""The handler option that lets people in without a token."""
ME: Final = "me"
_MAX_TOKEN: Final = 200


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything the handlers call."""

    info: HubInfo
    health: HubHealth
    accounts: Accounts
    enrolment: Enrolment
    roots: Roots
    root_changes: RootChanges
    workspaces: Workspaces
    workspace_changes: WorkspaceChanges
    sharing: Sharing
    settling: Settling
    groups: Groups
    requests: Requests
    issuing: Issuing
    assertions: Assertions
    links: Links
    searching: Searching
    details: Details
    watching: Watching
    audit: Audit
    quotas: Quotas
    explaining: Explaining
    history: History
    verifying: Verifying
    alarms: Alarms
    metrics: Metrics
    proxy_hops: int = 0
    """How many reverse proxies stand in front whose X-Forwarded-For is believed."""


class Call(Request[Actor, Any, State]):
    """A request of a person."""

    @property
    def services(self) -> Services:
        """The services of this hub."""
        return cast("Services", self.app.state.services)

    @property
    def actor(self) -> Actor:
        """Who asks; the guard has seen to it that there is somebody."""
        return self.user

    @property
    def token(self) -> str:
        """The token they sent; raises NotSignedIn."""
        return token_of(self)

    @property
    def address(self) -> str:
        """Where they ask from, for the audit trail and for counting tries."""
        return address_of(self)

    def owner(self, text: str) -> str:
        """Turn the ``{owner}`` of an address into a user name: ``me`` is the one who asks."""
        return self.actor.username if text == ME else text

    async def json(self) -> Any:
        """Read the body as the type that the handler wants; raises BadInput that names the field.

        Stricter than the framework's own way: a number in quotes is no number, and a name that stands there twice is refused,
        because a program in between may have read the other one.
        """
        body = await self.body()
        wanted = self.route_handler.parsed_data_field
        try:
            json.loads(body, object_pairs_hook=_once, parse_constant=_no_constant)
            return msgspec.json.decode(body, type=Any if wanted is None else wanted.annotation)
        except msgspec.ValidationError as error:
            raise BadInput(f"The body of this request is not what it should be: {_plain(error)}.") from error
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise BadInput("The body of this request is not JSON.") from error


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadInput(f"The body of this request holds {shown(name)} twice.")
        found[name] = value
    return found


def _no_constant(_word: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _plain(error: msgspec.ValidationError) -> str:
    """Turn ``Expected `int`, got `str` - at `$.life_s``` into a part of a sentence that names the field."""
    what, dash, where = str(error).rpartition(" - at ")
    if not dash:
        return _lower(str(error))
    field = where.strip("`").removeprefix("$").removeprefix(".")
    return f"{field}: {_lower(what)}" if field else _lower(what)


def _lower(text: str) -> str:
    text = text.replace("`", "")
    return text[:1].lower() + text[1:]


async def signed_in(connection: ASGIConnection[Any, Any, Any, State], handler: BaseRouteHandler) -> None:
    """Guard: find out who asks before anything of the request is read; raises NotSignedIn.

    Every route has it. One that needs no token says so with ``opt={"open": True}``, so forgetting leaves a door shut.
    """
    if handler.opt.get(OPEN):
        return
    services = cast("Services", connection.app.state.services)
    connection.scope["user"] = await services.accounts.actor(token_of(connection), address_of(connection))


def token_of(connection: ASGIConnection[Any, Any, Any, State]) -> str:
    """Return the token of ``Authorization: Bearer``; raise NotSignedIn if there is none that could be one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotSignedIn("This needs a token in Authorization: Bearer.", todo="Sign in: wio login.")
    if len(token) > _MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise NotSignedIn("What was sent as a token is none.", todo="Sign in again: wio login.")
    return token


def address_of(connection: ASGIConnection[Any, Any, Any, State]) -> str:
    """Return the address a request comes from.

    X-Forwarded-For is what anybody writes into it, except for its last entries: each proxy appends the address it was
    asked from. So the one that counts stands as many places from the end as proxies are trusted.
    """
    services = cast("Services", connection.app.state.services)
    direct = connection.client.host if connection.client else ""
    if services.proxy_hops == 0:
        return direct
    chain = [part.strip() for line in connection.headers.getall("x-forwarded-for", []) for part in line.split(",")]
    if len(chain) < services.proxy_hops:
        return direct
    return chain[-services.proxy_hops][:64]
