"""Whether a storage server can be reached from here, step by step: name, connection, certificate, S3, browsers.

Used by ``wio doctor``: each step says what it found, so that the first one that fails is the one to look at.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from protocol.checkup import Finding, Verdict, clock
from protocol.names import shown

STEP_S: Final = 5.0
_SOON_DAYS: Final = 14
_DAY_S: Final = 86_400
_SERVER_ERROR: Final = 500


class Server:
    """A storage server at ``url``, looked at for ``part`` of a checkup."""

    def __init__(self, part: str, url: str, *, wall: Callable[[], float] = time.time) -> None:
        self.part = part
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self.host = parts.hostname or ""
        self.tls = parts.scheme == "https"
        self.port = parts.port or (443 if self.tls else 80)
        self._wall = wall

    def findings(self, origin: str) -> Iterator[Finding]:
        """Go from name to answer; the first thing that is wrong is the last one told. ``origin``: the hub's web page."""
        for step in (self._name, self._connection, self._certificate):
            found = step()
            if found is not None:
                yield found
                if found.verdict is Verdict.WRONG:
                    return
        yield from self._http(origin)

    def _is(self, what: str, verdict: Verdict, says: str, todo: str = "") -> Finding:
        return Finding(self.part, what, verdict, says, todo)

    def _name(self) -> Finding:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            return self._is(
                "name",
                Verdict.WRONG,
                f"{shown(self.host)} has no address here: {error.strerror or error}.",
                "Check that you are in the right network (VPN?); else tell the node's owner.",
            )
        addresses = sorted({str(one[4][0]) for one in found})
        return self._is("name", Verdict.GOOD, f"{self.host} is {', '.join(addresses[:3])}.")

    def _connection(self) -> Finding:
        began = time.monotonic()
        try:
            socket.create_connection((self.host, self.port), STEP_S).close()
        except OSError as error:
            why = "it does not answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
            return self._is(
                "connection",
                Verdict.WRONG,
                f"There is no connection to {self.host}, port {self.port}: {why}.",
                "Check the network (VPN, firewall); if others reach it, tell the node's owner the address that fails here.",
            )
        return self._is("connection", Verdict.GOOD, f"Port {self.port} answers in {1000 * (time.monotonic() - began):.0f} ms.")

    def _certificate(self) -> Finding | None:
        if not self.tls:
            return self._plain()
        try:
            raw = socket.create_connection((self.host, self.port), STEP_S)
            with closing(ssl.create_default_context().wrap_socket(raw, server_hostname=self.host)) as line:
                certificate = line.getpeercert() or {}
        except ssl.SSLCertVerificationError as error:
            return self._is(
                "certificate",
                Verdict.WRONG,
                f"Its certificate is not trusted here: {error.verify_message}.",
                "Point SSL_CERT_FILE and AWS_CA_BUNDLE at the certificate authority of that server, or tell the node's owner.",
            )
        except (ssl.SSLError, OSError) as error:
            why = getattr(error, "reason", None) or error
            return self._is(
                "certificate", Verdict.WRONG, f"It does not speak TLS: {why}.", "The node's owner gave an https:// address."
            )
        left = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - self._wall()
        until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC).strftime("%Y-%m-%d")
        if left < _SOON_DAYS * _DAY_S:
            return self._is(
                "certificate", Verdict.REMARK, f"Its certificate ends on {until}.", "Tell the node's owner to renew it."
            )
        return self._is("certificate", Verdict.GOOD, f"Its certificate is trusted, until {until}.")

    def _plain(self) -> Finding | None:
        if self.host in {"localhost", "::1"} or self.host.startswith("127."):
            return None
        return self._is(
            "certificate",
            Verdict.REMARK,
            "It is reached without TLS: everybody on the way can read the files.",
            "The node's owner can give it a certificate; until then use it in networks you trust.",
        )

    def _http(self, origin: str) -> Iterator[Finding]:
        pool = urllib3.PoolManager(timeout=STEP_S, retries=False)
        try:
            answer = pool.request("GET", f"{self.url}/", redirect=False)
            asked = pool.request(
                "OPTIONS",
                f"{self.url}/wio-doctor/file",
                headers={"Origin": origin, "Access-Control-Request-Method": "GET"},
                redirect=False,
            )
        except (HTTPError, OSError) as error:
            yield self._is(
                "S3",
                Verdict.WRONG,
                f"It does not speak HTTP as expected: {error}.",
                "Tell the node's owner; a proxy in between?",
            )
            return
        finally:
            pool.clear()
        speaks = b"<Error>" in answer.data[:2000] or any(name.lower().startswith("x-amz-") for name in answer.headers)
        if not speaks:
            yield self._is(
                "S3",
                Verdict.WRONG,
                f"Something answers there (status {answer.status}), but it is no S3 server.",
                "The node's owner gave a wrong port or address (a console, a proxy?); tell them.",
            )
            return
        if answer.status >= _SERVER_ERROR:
            todo = "Try again in a moment; else tell the node's owner."
            yield self._is("S3", Verdict.WRONG, f"The server is not well (status {answer.status}).", todo)
        else:
            yield self._is("S3", Verdict.GOOD, f"An S3 server answers ({answer.headers.get('Server', 'of no name')}).")
        yield clock(self.part, answer.headers.get("Date"), self._wall())
        allowed = asked.headers.get("Access-Control-Allow-Origin")
        if allowed in {"*", origin}:
            yield self._is("browsers", Verdict.GOOD, f"Pages of {origin} may read from it.")
        else:
            yield self._is(
                "browsers",
                Verdict.REMARK,
                f"It does not let pages of {origin} read from it (CORS), so the web page cannot show its files.",
                "Commands and programs do not need it. The node's owner can allow that origin on the server.",
            )
