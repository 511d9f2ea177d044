"""Storage keys of a person: asked of the hub, opened here, checked against the node's pinned key, kept until they are old.

The hub relays a key that only this client can open (``protocol.sealing``): the private half of the client's key never
leaves this process and serves one request. One key per node reaches everything the person has there, so keys are kept on
disk (0600) and used by the next command; when less than a third of a key's life is left, a new one is asked for. Programs
that ask at the same time wait for one another and share the answer. While the hub or the node's agent is away, a kept key goes
on to be used until shortly before it ends: the storage server needs neither of them.

A kept key may have lost its right meanwhile, which only the hub and the storage server know. Whoever hands a key on to a
person asks for a confirmed one; whoever uses it at once finds out by being refused, and asks for a confirmed one then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.api import Credentials, NewCredentials, NodeCredential
from protocol.errors import BadEndpoint, BadLifetime, BadMessage, BadName, BadSignature, NotAllowed, NotFound, Unreachable
from protocol.grants import Permission
from protocol.identity import from_text, to_text
from protocol.messages import SealedCredential
from protocol.names import shown
from protocol.sealing import Context, client_key, open_sealed
from wio import private
from wio.pins import Pins

USUAL_LIFE_S: Final = 3600
"""Below about 1,200 s tools fetch a key at every request (4-storage); an hour costs nothing, since revoking is immediate."""
LONG_LIFE_S: Final = 43_200
"""For long copies, whose tool cannot change keys on the way, and for links: a node's usual longest life."""
LAST_S: Final = 60
"""So much of a kept key's life must be left where no new one is to be had."""
_KEPT_PLACES: Final = 2000
"""Places in the file; the oldest go first."""


class Wish(msgspec.Struct, frozen=True):
    """What kind of key is wanted. ``narrow``: it reaches only the asked paths. ``left_s``: so much of its life must be left."""

    life_s: int = USUAL_LIFE_S
    read_only: bool = False
    narrow: bool = False
    left_s: int = 0


class Key(msgspec.Struct, frozen=True):
    """A storage key of one node. Times in Unix seconds; ``session_token`` may be empty. ``repr`` shows no secret."""

    node: str
    node_id: int
    access_key: str
    secret_key: str
    session_token: str
    fetched: int
    expires: int
    endpoint: str
    region: str

    def __repr__(self) -> str:
        return f"Key({self.access_key} at {self.endpoint})"

    def fresh(self, now: int) -> bool:
        """Say whether at least a third of its life is left."""
        return 3 * (self.expires - now) >= self.expires - self.fetched and self.expires > now


class Place(msgspec.Struct, frozen=True):
    """Where an asked path lies. ``key`` is the path's own position; a workspace's ``prefix`` is empty or ends in ``/``."""

    path: str
    workspace: str
    """``owner/name``."""
    node: str
    endpoint: str
    region: str
    bucket: str
    prefix: str
    key: str
    permission: Permission

    @property
    def inside(self) -> str:
        """The path below its workspace; empty for the workspace itself."""
        return self.key[len(self.prefix) :]

    @property
    def uri(self) -> str:
        """The position as tools write it: ``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"


class Opening(msgspec.Struct, frozen=True):
    """A place and the key that opens it. ``kept``: the key is from the file; the hub was not asked just now."""

    place: Place
    key: Key
    kept: bool = False


class Kept(msgspec.Struct):
    """The file of one person on one hub: a key per kind of wish and node, and where workspaces lie, by what begins a path."""

    keys: dict[str, dict[str, Key]] = {}
    places: dict[str, Place] = {}


class Keys:
    """The storage keys of one person: from the file while they are fresh, else from the hub."""

    def __init__(
        self,
        ask: Callable[[NewCredentials], Credentials],
        path: Path,
        pins: Pins,
        *,
        clock: Callable[[], float],
        new_key: Callable[[], X25519PrivateKey] = X25519PrivateKey.generate,
    ) -> None:
        self._ask = ask
        self._path = path
        self._pins = pins
        self._clock = clock
        self._new_key = new_key
        self.warnings: tuple[str, ...] = ()
        """What the hub had to say beside its last answer: a quota that is nearly or quite used up."""

    def open(
        self,
        paths: Sequence[str],
        wish: Wish = Wish(),  # noqa: B008  - frozen: one for all
        *,
        confirmed: bool = False,
    ) -> tuple[Opening, ...]:
        """Return where each path lies and a key that opens it, in the order asked.

        ``confirmed``: the hub is asked in any case, and its answer takes the place of what was kept. Raises what the hub
        answers (UnknownWorkspace, NoGrant, NodeOffline, …), BadSignature for a key that its node did not make, BadLifetime
        for one that is over on arrival. Where the hub refuses a path, keys that were kept for it are thrown away.
        """
        for path in paths:
            check_path(path)
        with private.locked(self._path):
            kept = _read(self._path)
            found = None if confirmed else _lookup(kept, paths, wish, int(self._clock()))
            if found is None:
                try:
                    found = self._fetch(paths, wish)
                except (NotFound, NotAllowed):
                    left = _without(kept, paths)
                    if left != kept:
                        private.write(self._path, msgspec.json.encode(left))
                    raise
                except Unreachable:
                    last = None if confirmed else _lookup(kept, paths, wish, int(self._clock()), last=True)
                    if last is None:
                        raise
                    return last
                private.write(self._path, msgspec.json.encode(_keep(kept, found, paths, wish, int(self._clock()))))
        return found

    def any(self, paths: Sequence[str], wish: Wish = Wish(), *, confirmed: bool = False) -> Opening:  # noqa: B008  - as above
        """Return the first of these paths that can be opened; raises what the last one met if none can.

        For tools that work with all a person has on a node: that one workspace there is gone ends nothing for the others.
        """
        for path in paths[:-1]:
            try:
                return self.open((path,), wish, confirmed=confirmed)[0]
            except (NotFound, NotAllowed):
                continue
        return self.open(paths[-1:], wish, confirmed=confirmed)[0]

    def kept(self) -> tuple[tuple[str, Key], ...]:
        """Return the keys on this machine that have not ended, each with the kind of wish that it answers."""
        now = int(self._clock())
        return tuple(
            (kind, key) for kind, of in sorted(_read(self._path).keys.items()) for key in of.values() if key.expires > now
        )

    def forget(self) -> None:
        """Remove the keys from this machine. They go on working until they end, or access is taken away."""
        with private.locked(self._path):
            private.remove(self._path)

    def doubt(self, path: str) -> None:
        """Throw away what is kept for a path that the hub has just refused in another matter."""
        with private.locked(self._path):
            kept = _read(self._path)
            left = _without(kept, (path,))
            if left != kept:
                private.write(self._path, msgspec.json.encode(left))

    def _fetch(self, paths: Sequence[str], wish: Wish) -> tuple[Opening, ...]:
        private_key = self._new_key()
        public = client_key(private_key)
        asked = NewCredentials(to_text(public), tuple(dict.fromkeys(paths)), wish.life_s, wish.read_only, wish.narrow)
        now = int(self._clock())
        answer = self._ask(asked)
        self.warnings = answer.warnings
        opened: dict[str, Opening] = {}
        for sealed in answer.keys:
            key = open_key(sealed, private_key, self._pins, now)
            opened |= {opening.place.path: opening for opening in _openings(sealed, key)}
        missing = [path for path in paths if path not in opened]
        if missing:
            raise BadMessage(
                f"The hub gave no key for {', '.join(map(shown, missing))}.", todo="Hub and wio may be of different versions."
            )
        return tuple(opened[path] for path in paths)


def open_key(sealed: NodeCredential, private_key: X25519PrivateKey, pins: Pins, now: int) -> Key:
    """Open one sealed key: check its node's key against the pinned one (or pin it), its signature, its life, its endpoint.

    Raises BadSignature, BadMessage, BadLifetime or BadEndpoint.
    """
    node_key = from_text(sealed.node_key)
    known = pins.check(sealed.node, node_key)
    context = Context(sealed.node_id, sealed.subject, sealed.request, client_key(private_key))
    signature = from_text(sealed.signature)
    try:
        credential = SealedCredential(from_text(sealed.sealed), signature, sealed.expires_at)
        clear = open_sealed(private_key, node_key, context, credential)
    except BadSignature as error:
        raise BadSignature(
            f"The key that arrived for node {shown(sealed.node)} was not made by it for this request.", todo=error.todo
        ) from error
    if clear.expires <= now:
        raise BadLifetime(
            f"The key of node {shown(sealed.node)} was over before it arrived.",
            todo="The clocks of this machine and of the node are apart; set them right.",
        )
    if not known:
        pins.remember(sealed.node, node_key)
    return Key(
        node=sealed.node,
        node_id=sealed.node_id,
        access_key=clear.access_key,
        secret_key=clear.secret_key,
        session_token=clear.session_token,
        fetched=now,
        expires=clear.expires,
        endpoint=check_endpoint(clear.endpoint),
        region=clear.region,
    )


def check_endpoint(url: str) -> str:
    """Return a storage endpoint without its final slash if it is a plain http or https address; else raise BadEndpoint."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    else:
        good = good and "@" not in parts.netloc and not parts.query and not parts.fragment and parts.path in {"", "/"}
    if not good or not url.isprintable() or " " in url:
        raise BadEndpoint(f"The node says its storage is at {shown(url)}, which is no http or https address.")
    return url.rstrip("/")


def check_path(path: str) -> str:
    """Return ``path`` if it can be asked for; raise BadName for one that is empty or no Unicode."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise BadName(f"{shown(path)} is not valid Unicode.") from error
    if not path.strip("/"):
        raise BadName("A path begins with a workspace.", todo="Write name/… for one of your own, or owner/name/…")
    return path


def keys_file(hub: str, token: str) -> str:
    """Return the name of the file for one token on one hub, which gives neither away."""
    return hashlib.sha256(f"wio keys\0{hub}\0{token}".encode()).hexdigest()[:32] + ".json"


def _kind(paths: Iterable[str], wish: Wish) -> str:
    """Return what tells keys apart: two requests of one kind may share a key."""
    reach = "\0".join(sorted(set(paths))) if wish.narrow else ""
    digest = hashlib.sha256(reach.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{wish.life_s}{' read-only' if wish.read_only else ''}{f' only {digest}' if wish.narrow else ''}"


def _openings(sealed: NodeCredential, key: Key) -> list[Opening]:
    return [
        Opening(
            Place(
                path=one.path,
                workspace=one.workspace,
                node=key.node,
                endpoint=key.endpoint,
                region=key.region,
                bucket=one.bucket,
                prefix=one.prefix,
                key=one.key,
                permission=one.permission,
            ),
            key,
        )
        for one in sealed.opens
    ]


def _lookup(kept: Kept, paths: Sequence[str], wish: Wish, now: int, *, last: bool = False) -> tuple[Opening, ...] | None:
    """Return the whole answer if the file has it and every key of it is fresh, or, as the ``last`` way out, still good."""
    keys = kept.keys.get(_kind(paths, wish), {})
    found = []
    for path in paths:
        place = _place(kept, path)
        key = keys.get(place.node) if place else None
        if place is None or key is None:
            return None
        good = key.expires - now >= LAST_S if last else key.fresh(now)
        if not good or key.expires - now < wish.left_s:
            return None
        found.append(Opening(place, key, kept=True))
    return tuple(found)


def _place(kept: Kept, path: str) -> Place | None:
    """Find a path by the workspace that begins it, one's own first, as the hub reads paths."""
    for head, inside in _readings(path):
        place = kept.places.get(head)
        if place is not None:
            return msgspec.structs.replace(place, path=path, key=place.prefix + inside)
    return None


def _readings(path: str) -> tuple[tuple[str, str], ...]:
    """Return the two ways to read a path: what names its workspace, and the rest."""
    first, _, rest = path.partition("/")
    second, _, below = rest.partition("/")
    return (first, rest), (f"{first}/{second}", below)


def _without(kept: Kept, paths: Sequence[str]) -> Kept:
    """Return the file without these paths and without any key of the nodes they lie on.

    Other workspaces there cost one question more; a key whose right is in doubt is not kept for them.
    """
    heads = {head for path in paths for head, _ in _readings(path) if head in kept.places}
    nodes = {kept.places[head].node for head in heads}
    keys = {kind: {node: key for node, key in of.items() if node not in nodes} for kind, of in kept.keys.items()}
    places = {head: place for head, place in kept.places.items() if head not in heads}
    return Kept({kind: of for kind, of in keys.items() if of}, places)


def _head(place: Place) -> str | None:
    """Return what of a path named its workspace: ``scans``, ``alice/scans``; None if the hub read it in another way."""
    if not place.path.endswith(place.inside):
        return None
    head = place.path[: len(place.path) - len(place.inside)].rstrip("/")
    return head if head and head.count("/") < 2 else None  # noqa: PLR2004  - a name, or owner and name


def _keep(kept: Kept, found: Sequence[Opening], paths: Sequence[str], wish: Wish, now: int) -> Kept:
    """Return the file with a new answer in it, without what is over."""
    kind = _kind(paths, wish)
    keys: dict[str, dict[str, Key]] = {kind: {}} | {
        name: {node: key for node, key in nodes.items() if key.expires > now} for name, nodes in kept.keys.items()
    }
    heads = {_head(opening.place): opening.place for opening in found}
    for opening in found:
        keys[kind][opening.key.node] = opening.key
    places = {head: place for head, place in (*kept.places.items(), *heads.items()) if head is not None}
    living = {node for nodes in keys.values() for node in nodes}
    places = {head: place for head, place in places.items() if place.node in living}
    return Kept({name: nodes for name, nodes in keys.items() if nodes}, dict(list(places.items())[-_KEPT_PLACES:]))


def _read(path: Path) -> Kept:
    content = private.read(path)
    if content is None:
        return Kept()
    try:
        return msgspec.json.decode(content, type=Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Kept()  # of another version, or spoiled: nothing in it cannot be asked for again
