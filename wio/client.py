"""The typed client of a hub, waiting (``Client``, over urllib3) and asynchronous (``AsyncClient``, over httpx).

Every method of both is a value of ``wio.calls``, run. Errors are those of ``protocol.errors``: the hub's own, and
HubUnreachable, with the hub's address and what to do, for whatever goes wrong on the way. Connections are kept alive; a
client may be used by several threads (or tasks) at once. No ``repr`` shows the token.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar, overload
from urllib.parse import urlsplit

from protocol.errors import BadSetting, HubUnreachable, WioError
from protocol.names import shown
from wio import calls
from wio.calls import Call
from wio.connections import ANSWER_S, CONNECT_S, Connections, tls_trouble, unreachable
from wio.web import httpx

P = ParamSpec("P")
T = TypeVar("T")

_TIMEOUT: Final = httpx.Timeout(ANSWER_S, connect=CONNECT_S)


class _Method(Generic[P, T]):
    """A call as a method of both clients: ``Client`` waits for the answer, ``AsyncClient`` returns something to await."""

    def __init__(self, make: Callable[P, Call[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: Client, owner: type[Client]) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type[AsyncClient]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type[Any]) -> Self: ...

    def __get__(self, client: Client | AsyncClient | None, owner: type[Any]) -> Any:
        if client is None:
            return self

        def method(*args: P.args, **kwargs: P.kwargs) -> T | Coroutine[Any, Any, T]:
            return client.run(self._make(*args, **kwargs))

        method.__doc__ = self.__doc__
        return method


class _Calls:
    """What both clients can do: the one table."""

    register = _Method(calls.register)
    login = _Method(calls.login)
    logout = _Method(calls.logout)
    me = _Method(calls.me)
    hub = _Method(calls.hub)
    health = _Method(calls.health)
    invite = _Method(calls.invite)
    nodes = _Method(calls.nodes)
    node = _Method(calls.node)
    evict = _Method(calls.evict)
    confirm_node = _Method(calls.confirm_node)
    alarms = _Method(calls.alarms)
    create_root = _Method(calls.create_root)
    roots = _Method(calls.roots)
    root = _Method(calls.root)
    change_root = _Method(calls.change_root)
    retire_root = _Method(calls.retire_root)
    survey_root = _Method(calls.survey_root)
    survey_node = _Method(calls.survey_node)
    verify_root = _Method(calls.verify_root)
    scan = _Method(calls.scan)
    scan_status = _Method(calls.scan_status)
    create_workspace = _Method(calls.create_workspace)
    workspaces = _Method(calls.workspaces)
    workspace = _Method(calls.workspace)
    change_workspace = _Method(calls.change_workspace)
    hand_over = _Method(calls.hand_over)
    delete_workspace = _Method(calls.delete_workspace)
    shares = _Method(calls.shares)
    share = _Method(calls.share)
    unshare = _Method(calls.unshare)
    request_access = _Method(calls.request_access)
    requests = _Method(calls.requests)
    answer = _Method(calls.answer)
    groups = _Method(calls.groups)
    group = _Method(calls.group)
    create_group = _Method(calls.create_group)
    delete_group = _Method(calls.delete_group)
    add_member = _Method(calls.add_member)
    remove_member = _Method(calls.remove_member)
    quotas = _Method(calls.quotas)
    set_quota = _Method(calls.set_quota)
    delete_quota = _Method(calls.delete_quota)
    credentials = _Method(calls.credentials)
    make_link = _Method(calls.make_link)
    links = _Method(calls.links)
    revoke_link = _Method(calls.revoke_link)
    vouch = _Method(calls.vouch)
    files = _Method(calls.files)
    file = _Method(calls.file)
    unreadable = _Method(calls.unreadable)
    search = _Method(calls.search)
    changes = _Method(calls.changes)
    why = _Method(calls.why)
    access = _Method(calls.access)
    accesses = _Method(calls.accesses)
    audit = _Method(calls.audit)
    audit_check = _Method(calls.audit_check)


class Client(_Calls):
    """A hub, as a program uses it. Close it, or use it in a ``with``."""

    def __init__(self, hub: str, token: str | None = None) -> None:
        self.hub_url = hub_address(hub)
        self._http = Connections(self.hub_url, _headers(token), _trust(self.hub_url))

    def __repr__(self) -> str:
        return f"Client({self.hub_url})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def run(self, call: Call[T]) -> T:
        """Send one call and return its answer; raises any error of ``protocol.errors``."""
        status, headers, body = self._http.ask(
            call.method, calls.BASE + call.path, call.query, call.content, wait_s=call.wait_s
        )
        return _read(call, self.hub_url, status, headers, body)

    def audit_lines(self, *, workspace: str | None = None) -> Iterator[bytes]:
        """Read the whole audit trail as it comes in: one JSON text a line (an AuditEntry), oldest first, without line ends."""
        call = calls.audit_lines(workspace=workspace)
        with self._http.opened(call.method, calls.BASE + call.path, call.query) as answer:
            if not calls.good(answer.status):
                _read(call, self.hub_url, answer.status, answer.headers, answer.data)
            rest = b""
            for chunk in answer.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, lines)
            if rest:
                yield rest


class AsyncClient(_Calls):
    """A hub, as an asynchronous program uses it. Close it, or use it in an ``async with``."""

    def __init__(self, hub: str, token: str | None = None, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.hub_url = hub_address(hub)
        self._http = httpx.AsyncClient(
            base_url=self.hub_url + calls.BASE,
            headers=_headers(token),
            timeout=_TIMEOUT,
            verify=_trust(self.hub_url),
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"AsyncClient({self.hub_url})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def run(self, call: Call[T]) -> T:
        """Send one call and return its answer; raises any error of ``protocol.errors``."""
        try:
            answer = await self._http.send(_request(self._http, call))
        except httpx.HTTPError as error:
            raise _trouble(self.hub_url, error) from error
        return _read(call, self.hub_url, answer.status_code, answer.headers, answer.content)

    async def audit_lines(self, *, workspace: str | None = None) -> AsyncIterator[bytes]:
        """Read the whole audit trail as it comes in: one JSON text a line (an AuditEntry), oldest first, without line ends."""
        call = calls.audit_lines(workspace=workspace)
        try:
            answer = await self._http.send(_request(self._http, call), stream=True)
            async with aclosing(answer):
                if not calls.good(answer.status_code):
                    body = await answer.aread()
                    _read(call, self.hub_url, answer.status_code, answer.headers, body)
                rest = b""
                async for chunk in answer.aiter_bytes():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in filter(None, lines):
                        yield line
                if rest:
                    yield rest
        except httpx.HTTPError as error:
            raise _trouble(self.hub_url, error) from error


# ------------------------------------------------------------------------------------------------------ both


def hub_address(text: str) -> str:
    """Return a hub's address in its one form: a scheme, no final slash; raise BadSetting if it cannot be one.

    Without a scheme it is https, except on this machine, where a hub has no certificate.
    """
    text = text.strip().rstrip("/")
    if "://" not in text:
        text = f"{'http' if _loopback(f'http://{text}') else 'https'}://{text}"
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    else:
        good = good and "@" not in parts.netloc and not parts.query and not parts.fragment and text.isprintable()
    if not good:
        raise BadSetting(f"{shown(text)} is not the address of a hub.", todo="Write it like https://hub.example.org")
    return text


def unprotected(hub_url: str) -> bool:
    """Say whether passwords and tokens would travel to this hub in the clear over a network."""
    return hub_url.startswith("http://") and not _loopback(hub_url)


def _loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host in {"localhost", "::1"} or host.startswith("127.")


def _headers(token: str | None) -> dict[str, str]:
    headers = {"Accept": "application/json"}
    if token:
        if not (token.isascii() and token.isprintable()):
            raise BadSetting("The token holds characters that no token has.", todo="Sign in again: wio login.")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _trust(hub_url: str) -> ssl.SSLContext:
    """Return what certificates are verified with.

    Reading the certificate authorities takes 20 ms. A hub without TLS needs none of them: it gets a context that trusts
    nobody, so that nothing would pass unverified either.
    """
    return httpx.create_ssl_context() if hub_url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _request(http: httpx.AsyncClient, call: Call[T]) -> httpx.Request:
    headers = {"Content-Type": "application/json"} if call.content is not None else {}
    timeout = _TIMEOUT if call.wait_s is None else httpx.Timeout(call.wait_s, connect=CONNECT_S)
    return http.build_request(
        call.method, call.path, params=call.query or None, content=call.content, headers=headers, timeout=timeout
    )


def _read(call: Call[T], hub_url: str, status: int, headers: Mapping[str, str], body: bytes) -> T:
    kind, location = headers.get("content-type", ""), headers.get("location", "")
    return calls.decode(call, hub_url, status, body, content_type=kind, location=location)


def _trouble(hub_url: str, error: httpx.HTTPError) -> WioError:
    """Turn what went wrong on the way to the hub into a sentence."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    tls = tls_trouble(hub_url, chain)
    if tls is not None:
        return tls
    if isinstance(error, httpx.UnsupportedProtocol):
        return BadSetting(f"{hub_url} is not the address of a hub.", todo="Write it like https://hub.example.org")
    if isinstance(error, httpx.ConnectTimeout):
        return unreachable(hub_url, "it did not answer in time")
    if isinstance(error, httpx.ConnectError):
        return unreachable(hub_url, str(error) or "no connection")
    if isinstance(error, httpx.TimeoutException):
        return HubUnreachable(f"The hub at {hub_url} took too long to answer.", todo="Try again in a moment.")
    return HubUnreachable(
        f"The connection to the hub at {hub_url} broke: {str(error) or type(error).__name__}.", todo="Try again in a moment."
    )
