"""Presigning: one request for one file, signed here with a key that nobody ever gets.

A link is a subject of its own, with a holder of its own on the storage server: what that holder may do is at every moment
what both the link and whoever made it may do (``Principals.allowed``). The key is minted, signs, and is forgotten; the
signed request goes to the client alone, sealed.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from protocol.errors import BadLifetime, BadName, NoGrant, NotAllowed
from protocol.grants import Grant, Narrowing, Permission
from protocol.messages import LinkSigned, SignLink
from protocol.names import check_bucket, check_key, check_prefix
from protocol.sealing import ClearLink, Context, seal_link
from spoke_agent.access.applying import Applying
from spoke_agent.access.ceiling import check_link
from spoke_agent.access.minting import SHORTEST_S, known
from spoke_agent.access.principals import Principal, Principals
from spoke_agent.access.state import NodeSettings, Secrets
from spoke_agent.storage.node import Holder, StorageNode
from spoke_agent.storage.sigv4 import Key, Signer, quoted_path

_USUAL: Final = {"http": ":80", "https": ":443"}


class Presigning:
    """Signs links."""

    def __init__(
        self, storage: StorageNode, principals: Principals, applying: Applying, settings: NodeSettings, secrets: Secrets
    ) -> None:
        self._storage = storage
        self._principals = principals
        self._applying = applying
        self._node = settings.node
        self._endpoint = settings.storage.public_endpoints[0].rstrip("/")
        self._signer = Signer(settings.storage.region)
        self._key = secrets.node_key

    async def sign(self, request: SignLink) -> LinkSigned:
        """Sign and seal a link. It ends with ``life_s``, with its grant, or with the lease, whichever comes first.

        Raises OverCeiling (paused, or longer than the owner wants), Pending (an older epoch than the hub's), NotAllowed,
        NoGrant, BadName, BadLifetime, BadMessage (a client key that is none), and what storage raises.
        """
        link = known(self._principals, request.subject, request.epoch)
        if not link.is_link:
            raise NotAllowed(f"{request.subject.name} is no link.")
        check_link(self._principals.ceiling, request.life_s)
        check_bucket(request.bucket)
        check_key(request.key)
        holder = await self._ready(link)
        grant = self._opened(link, request)
        now = self._principals.now
        ends = [end for end in (grant.expires, self._principals.lease_end(link)) if end is not None]
        expires = min(now + request.life_s, *ends)
        if expires <= now:
            raise BadLifetime("The link's time is over before it is made.", todo="Ask for a longer --expires.")
        life_s = expires - now
        place = Narrowing(((request.bucket, _folder(request.key, grant.prefix)),), not request.put)
        minted = await self._storage.mint(holder, life_s=max(SHORTEST_S, life_s), narrowing=place)
        method = "PUT" if request.put else "GET"
        path = quoted_path(f"/{request.bucket}/{request.key}")
        key = Key(minted.access_key, minted.secret_key, minted.session_token)
        query = self._signer.presign(key, method, host(self._endpoint), path, life_s=life_s, now_s=now)
        context = Context(self._node, link.subject.id, request.request, request.client_key)
        clear = ClearLink(method, f"{self._endpoint}{path}?{query}", expires)
        return LinkSigned(request.request, seal_link(self._key, context, clear))

    async def _ready(self, link: Principal) -> Holder:
        """Return the link's holder, made now unless it has been, with the access it is meant to have."""
        async with self._principals.lock(link.subject):
            grants = self._principals.allowed(link).grants
            if not grants:
                raise NoGrant(f"Nothing is open to {link.subject.name} on this node: whoever made it has no access there.")
            holder = link.holder or await self._applying.make_holder(link, grants)
            await self._applying.agree(link)
            return holder

    def _opened(self, link: Principal, request: SignLink) -> Grant:
        for grant in self._principals.allowed(link).grants:
            able = grant.permission is Permission.DROP if request.put else grant.permission.reads
            if able and grant.bucket == request.bucket and request.key.startswith(grant.prefix):
                return grant
        raise NoGrant(f"{link.subject.name} does not reach that file on this node.")


def host(endpoint: str) -> str:
    """Return what clients send as Host to an address: without the port that is usual for it."""
    parts = urlsplit(endpoint)
    return parts.netloc.removesuffix(_USUAL.get(parts.scheme, ""))


def _folder(key: str, above: str) -> str:
    """Return the folder of a key, or the nearest one above that may stand in a policy; never one above ``above``."""
    folder = key[: key.rfind("/") + 1]
    while len(folder) > len(above):
        try:
            return check_prefix(folder)
        except BadName:
            folder = folder[: folder.rfind("/", 0, -1) + 1]
    return above
