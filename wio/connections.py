"""Living connections to one hub, for a program that waits for its answers. Over urllib3.

A key has to cost little more than the storage server's own part of it, and httpx alone costs 0.7 ms of processor time per
request, urllib3 0.3 ms (measured). Proxies and certificates are found where httpx finds them.
"""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError
from urllib3.exceptions import TimeoutError as WaitedTooLong

from protocol.errors import HubUnreachable, WioError

CONNECT_S: Final = 10.0
ANSWER_S: Final = 90.0
"""An unshare waits for its node; the hub gives up long before this."""
_KEPT: Final = 32
"""Connections kept open: one per thread that asks at the same time."""


class Answer(NamedTuple):
    """What the hub, or whatever answers there, said. Names in ``headers`` may be asked for in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """Connections to one hub; any number of threads may use them. Redirects are not followed, nothing is sent twice."""

    def __init__(self, hub_url: str, headers: Mapping[str, str], trust: ssl.SSLContext) -> None:
        self._hub_url = hub_url
        self._headers = {"User-Agent": "wio", "Accept-Encoding": "gzip", **headers}
        timeout = urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S)
        proxy = _proxy_to(hub_url)
        if proxy is None:
            self._manager = urllib3.PoolManager(maxsize=_KEPT, timeout=timeout, ssl_context=trust)
            # Asked for once: finding the pool again costs a tenth of a request.
            self._pool: urllib3.HTTPConnectionPool | urllib3.PoolManager = self._manager.connection_from_url(hub_url)
            self._front = urlsplit(hub_url).path
        else:
            self._manager = urllib3.ProxyManager(proxy, maxsize=_KEPT, timeout=timeout, ssl_context=trust)
            self._pool = self._manager
            self._front = hub_url

    def close(self) -> None:
        """Let go of the connections."""
        self._manager.clear()

    def ask(
        self,
        method: str,
        path: str,
        query: tuple[tuple[str, str], ...] = (),
        content: bytes | None = None,
        *,
        wait_s: float | None = None,
    ) -> Answer:
        """Send one request below the hub's address and return the answer, whatever its status. Raises HubUnreachable.

        The answer may take ``wait_s`` seconds, ANSWER_S unless given.
        """
        target = f"{self._front}{path}{'?' + urlencode(query) if query else ''}"
        timeout = urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S if wait_s is None else wait_s)
        headers = self._headers if content is None else {**self._headers, "Content-Type": "application/json"}
        try:
            answer = self._pool.urlopen(
                method, target, body=content, headers=headers, retries=False, redirect=False, timeout=timeout
            )
        except (HTTPError, OSError) as error:
            raise _trouble(self._hub_url, error) from error
        return Answer(answer.status, answer.headers, answer.data)

    @contextmanager
    def opened(self, method: str, path: str, query: tuple[tuple[str, str], ...] = ()) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send one request whose answer is read in the block, as it comes in. Raises HubUnreachable, there as well."""
        target = f"{self._front}{path}{'?' + urlencode(query) if query else ''}"
        try:
            answer = self._pool.urlopen(
                method, target, headers=self._headers, retries=False, redirect=False, preload_content=False
            )
            with closing(answer):
                yield answer
        except (HTTPError, OSError) as error:
            raise _trouble(self._hub_url, error) from error


def _proxy_to(hub_url: str) -> str | None:
    """Return the proxy that the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) wants for this hub."""
    parts = urlsplit(hub_url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _trouble(hub_url: str, error: HTTPError | OSError) -> WioError:
    """Turn what went wrong on the way to the hub into a sentence."""
    chain = _chain(error)
    tls = tls_trouble(hub_url, chain)
    if tls is not None:
        return tls
    system = next((one for one in chain if isinstance(one, OSError) and one.strerror), None)
    why = (system.strerror if system is not None else None) or str(error) or type(error).__name__
    if isinstance(error, ProxyError):
        return unreachable(hub_url, f"the proxy set in the environment does not answer ({why})")
    if isinstance(error, NewConnectionError):  # to urllib3 one of the next kind, but nothing has timed out
        return unreachable(hub_url, why)
    if isinstance(error, ConnectTimeoutError):
        return unreachable(hub_url, "it did not answer in time")
    if isinstance(error, WaitedTooLong):
        return HubUnreachable(f"The hub at {hub_url} took too long to answer.", todo="Try again in a moment.")
    return HubUnreachable(f"The connection to the hub at {hub_url} broke: {why}.", todo="Try again in a moment.")


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what led to it."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop(0)
        if one is not None and one not in found:
            found.append(one)
            left += [one.__cause__, one.__context__, *(part for part in one.args if isinstance(part, BaseException))]
    return found


# ------------------------------------------------------------------------------------------- the words for what went wrong


def tls_trouble(hub_url: str, chain: list[BaseException]) -> WioError | None:
    """Return the error for a connection that failed over TLS; None where that was not it."""
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            return HubUnreachable(
                f"The certificate of {hub_url} is not trusted: {one.verify_message}.",
                todo="Point SSL_CERT_FILE at the certificate authority of that hub, or check the address.",
            )
        if isinstance(one, ssl.SSLError):
            return HubUnreachable(
                f"{hub_url} does not speak TLS as expected: {one.reason or one}.",
                todo="Check whether the address begins with http:// or https://.",
            )
    return None


def unreachable(hub_url: str, why: str) -> HubUnreachable:
    """Return the error for a hub to which there is no connection."""
    return HubUnreachable(
        f"The hub at {hub_url} cannot be reached: {why}.",
        todo="Check the address (wio login --hub URL, or WIO_HUB) and that the hub runs.",
    )
