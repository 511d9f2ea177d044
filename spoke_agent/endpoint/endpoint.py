"""HTTP on loopback that gives a person's own tools their keys, in the form that SDKs call a container's credentials.

    AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:PORT/credentials
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=…   a file (0600) that holds an assertion of the hub: wioa1.….…

It needs no hub: whoever the hub has vouched for (``protocol.identity.Assertion``, for this node, not expired) and whom this
node knows gets a key on the newest grants that are here, within their lease. Who may ask at all, ``protocol.loopback`` decides.
Nothing of a request is logged.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.errors import BadInput, BadMessage, BadSetting, Internal, NotSignedIn, TooMany, Unreachable, WioError
from protocol.grants import Narrowing
from protocol.identity import Assertion, open_assertion, read_assertion
from protocol.loopback import LIFE_S, MAX_HEADER, ContainerKey, check_caller, hosts, is_loopback, token_of
from spoke_agent.storage.node import Credential

PATH: Final = "/credentials"
SHORTEST_S: Final = 900
LONGEST_ASSERTION_S: Final = 7 * 86_400
"""How long an assertion may hold at most, whatever the hub wrote into it."""
MINTS: Final = 30
WINDOW_S: Final = 60
"""Keys for one person in that time: tools ask a few times an hour."""
BAD: Final = 400

_log: Final = logging.getLogger(__name__)
_SILENT: Final = logging.getLogger(f"{__name__}.http")
_SILENT.disabled = True  # it quotes requests that cannot be read, and a token may be in one


class Minter(Protocol):
    """What mints: served by ``spoke_agent.access``."""

    async def mint_here(self, person: int, life_s: int, narrowing: Narrowing) -> Credential:
        """Mint a key for a person who is known here."""


class Endpoint:
    """Answers on loopback. ``clock`` gives Unix microseconds; ``node`` is this node's id, ``hub_key`` the pinned key."""

    def __init__(self, minter: Minter, hub_key: Ed25519PublicKey, node: int, clock: Callable[[], int]) -> None:
        self._minter = minter
        self._hub_key = hub_key
        self._node = node
        self._clock = clock
        self._minted: dict[int, list[int]] = {}
        self._hosts: frozenset[str] = frozenset()
        self.address = ""
        """Where it listens, as tools want it; empty while it does not."""

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[None]:
        """Answer for as long as this lasts. Raises BadSetting for an address that is not loopback, or not free."""
        if not is_loopback(host):
            raise BadSetting(f"The agent gives keys on loopback only, not at {host}.", todo="Give 127.0.0.1 or [::1].")
        app = web.Application(client_max_size=1024, middlewares=[_coded])
        app.router.add_get(PATH, self._give)
        runner = web.AppRunner(app, access_log=None, logger=_SILENT, max_field_size=MAX_HEADER, max_line_size=MAX_HEADER)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise BadSetting(
                    f"The agent cannot give keys at {host}:{port}: {error.strerror}.", todo="Choose another port."
                ) from error
            bound = runner.addresses[0][1]
            shown = f"[{host}]" if ":" in host else host
            self.address = f"http://{shown}:{bound}{PATH}"
            self._hosts = hosts(host, bound)
            yield
        finally:
            self.address = ""
            await runner.cleanup()

    async def _give(self, request: web.Request) -> web.Response:
        self._check_origin(request)
        assertion = self._check_assertion(_authorization(request))
        life_s, narrowing = _wanted(request)
        now = self._clock() // 1_000_000
        self._check_pace(assertion.person, now)
        life_s = min(life_s, max(SHORTEST_S, assertion.expires - now))
        key = await self._minter.mint_here(assertion.person, life_s, narrowing)
        ends = dt.datetime.fromtimestamp(key.expires, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = msgspec.json.encode(ContainerKey(key.access_key, key.secret_key, key.session_token, ends))
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    def _check_origin(self, request: web.Request) -> None:
        """Raise NotAllowed for what no tool of a person on this machine would send."""
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        check_caller(tuple(request.headers.items()), self._hosts, "" if peer is None else str(peer[0]), self.address)

    def _check_assertion(self, text: str) -> Assertion:
        """Return whom the hub has vouched for. Raises NotSignedIn, the same for every way in which it did not."""
        now = self._clock() // 1_000_000
        try:
            assertion = open_assertion(self._hub_key, read_assertion(text), node=self._node, now=now)
        except NotSignedIn:
            raise
        except WioError as error:
            raise NotSignedIn(
                "What was sent as an assertion is none of this node's hub.", todo="Ask the hub for one."
            ) from error
        if not 0 <= assertion.expires - assertion.issued <= LONGEST_ASSERTION_S:
            raise NotSignedIn(f"An assertion holds {LONGEST_ASSERTION_S} s at most; this one claims more.")
        return assertion

    def _check_pace(self, person: int, now: int) -> None:
        recent = [at for at in self._minted.get(person, ()) if at > now - WINDOW_S]
        if len(recent) >= MINTS:
            raise TooMany(f"More than {MINTS} keys in {WINDOW_S} s for one person.", todo="Keep a key until it expires.")
        self._minted = {one: times for one, times in self._minted.items() if times[-1] > now - WINDOW_S}
        self._minted[person] = [*recent, now]


def _authorization(request: web.Request) -> str:
    """Return the one token that was sent. Raises NotSignedIn."""
    token = token_of(tuple(request.headers.items()))
    if not token:
        raise NotSignedIn(
            "One assertion of the hub is needed, in Authorization.", todo="Put it into a file, without a newline."
        )
    return token


def _wanted(request: web.Request) -> tuple[int, Narrowing]:
    """Read what the address asks for: ``?life_s=`` and ``?read_only=1``, each once. Raises BadInput."""
    asked = dict(request.query)
    if len(asked) != len(request.query) or asked.keys() - {"life_s", "read_only"}:
        raise BadInput("Only life_s and read_only can be asked for, once each.")
    life = asked.get("life_s", str(LIFE_S))
    if not (life.isascii() and life.isdigit() and len(life) <= len(str(LIFE_S))) or not SHORTEST_S <= int(life) <= LIFE_S:
        raise BadInput(f"life_s is a number of seconds from {SHORTEST_S} to {LIFE_S}.")
    if asked.get("read_only", "0") not in {"0", "1"}:
        raise BadInput("read_only is 0 or 1.")
    return int(life), Narrowing(read_only=asked.get("read_only") == "1")


@web.middleware
async def _coded(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Turn errors into coded answers; nobody outside learns more than the sentence."""
    try:
        return await handler(request)
    except WioError as error:
        # 202 would be good news to a tool that wants a key.
        problem, status = error.problem, error.status if error.status >= BAD else Unreachable.status
    except web.HTTPException as error:
        problem, status = BadMessage(f"There is nothing here but GET {PATH}.").problem, error.status
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer and the log the kind
        _log.error("a key could not be given: %s", type(error).__name__)
        problem, status = Internal("The agent failed at this; its log has the rest.").problem, Internal.status
    return web.Response(
        status=status, body=msgspec.json.encode(problem), content_type="application/json", headers={"Cache-Control": "no-store"}
    )
