"""Presigned links: asked of the hub, signed by the node, opened here and nowhere else.

The hub relays a link that only this client can open, as it does keys (``wio.credentials``): the private half of the client's
key never leaves this process and serves one request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.api import Link, LinkMade, NewLink
from protocol.errors import BadLifetime, BadMessage, BadSignature
from protocol.identity import from_text, to_text
from protocol.messages import SealedCredential
from protocol.names import shown
from protocol.sealing import Context, client_key, open_link
from wio.credentials import check_endpoint, check_path
from wio.pins import Pins

_METHODS: Final = {False: "GET", True: "PUT"}


class Made(msgspec.Struct, frozen=True):
    """A link as whoever made it uses it. ``expires`` in Unix seconds; ``repr`` shows no address."""

    link: Link
    method: str
    url: str
    expires: int

    def __repr__(self) -> str:
        return f"Made({self.link.id} on {self.link.node})"


def make(
    ask: Callable[[NewLink], LinkMade],
    pins: Pins,
    path: str,
    *,
    life_s: int,
    put: bool = False,
    clock: Callable[[], float],
    new_key: Callable[[], X25519PrivateKey] = X25519PrivateKey.generate,
) -> Made:
    """Have a link made and open it.

    Raises what the hub answers (UnknownWorkspace, NoGrant, OverCeiling, NodeOffline, …), BadSignature for a link that its node
    did not make, BadLifetime for one that is over on arrival.
    """
    private = new_key()
    public = client_key(private)
    made = ask(NewLink(to_text(public), check_path(path), life_s, put))
    node_key, node = from_text(made.node_key), made.link.node
    known = pins.check(node, node_key)
    context = Context(made.node_id, made.link.id, made.request, public)
    sealed = SealedCredential(from_text(made.sealed), from_text(made.signature), made.expires_at)
    try:
        clear = open_link(private, node_key, context, sealed)
    except BadSignature as error:
        raise BadSignature(
            f"The link that arrived for node {shown(node)} was not made by it for this request.", todo=error.todo
        ) from error
    parts = urlsplit(clear.url)
    check_endpoint(f"{parts.scheme}://{parts.netloc}")
    if clear.method != _METHODS[put] or not clear.url.isascii() or not clear.url.isprintable() or " " in clear.url:
        raise BadMessage(f"Node {shown(node)} signed another request than was asked for.")
    if clear.expires <= clock():
        raise BadLifetime(
            f"The link of node {shown(node)} was over before it arrived.",
            todo="The clocks of this machine and of the node are apart; set them right.",
        )
    if not known:
        pins.remember(node, node_key)
    return Made(made.link, clear.method, clear.url, clear.expires)
