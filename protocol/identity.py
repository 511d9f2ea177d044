"""Who is who: Ed25519 keys of hub and node, join strings, and statements that the hub signs.

A *join string* carries everything a new agent needs: where the hub is, the hub's public key (pinned from then on), and the
seed of a one-use key pair of which the hub keeps only the public half. An *assertion* is the hub's signed word that a person
is who they say, for one node, for a short time. An *eviction* is the hub's signed word that a node is no longer wanted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import BadJoinString, BadMessage, BadSignature, NotSignedIn
from protocol.grants import Id, Second
from protocol.messages import Evict

_JOIN_PREFIX: Final = "wio1."
_JOIN_LIMIT: Final = 2000
_ASSERTION_TAG: Final = b"wio assertion v1\0"
_EVICTION_TAG: Final = b"wio eviction v1\0"
_ENCODE = msgspec.msgpack.Encoder()


def new_key(seed: bytes) -> Ed25519PrivateKey:
    """Make a key pair from 32 random bytes that the caller drew."""
    return Ed25519PrivateKey.from_private_bytes(seed)


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the 32 public bytes of a key."""
    return key.public_key().public_bytes_raw()


def public_key(raw: bytes) -> Ed25519PublicKey:
    """Return the key that 32 public bytes stand for; raise BadMessage if they stand for none."""
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise BadMessage("That is not an Ed25519 public key.") from error


def to_text(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """Return the bytes of strict base64url without padding; raise BadMessage for anything else."""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise BadMessage("That is not base64url.") from error
    if to_text(raw) != text:
        raise BadMessage("That is not base64url in its one canonical form.")
    return raw


def fingerprint(raw: bytes) -> str:
    """Return a short form of a public key for people to compare: 4 groups of 4 letters and digits."""
    text = base64.b32encode(hashlib.sha256(raw).digest()[:10]).decode().lower()
    return "-".join(text[i : i + 4] for i in range(0, 16, 4))


def label_of(raw: bytes) -> str:
    """Return what a node's things on its storage server are named after, where its owner did not name it when it joined."""
    return "node-" + hashlib.sha256(raw).hexdigest()[:10]


# ---------------------------------------------------------------------------------------------------- join strings


class _JoinBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    hub_url: Annotated[str, msgspec.Meta(min_length=8, max_length=500)]
    hub_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    seed: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    expires: Second


class JoinString(msgspec.Struct, frozen=True):
    """An invitation for one node. ``expires`` in Unix seconds. ``repr`` does not show the seed."""

    hub_url: str
    hub_key: bytes
    seed: bytes
    expires: int

    def __repr__(self) -> str:
        return f"JoinString({self.hub_url})"

    @property
    def key(self) -> Ed25519PrivateKey:
        """The one-use join key; the hub knows its public half."""
        return new_key(self.seed)

    def encode(self) -> str:
        """Return the text that a person pastes."""
        body = _ENCODE.encode(_JoinBody(self.hub_url, self.hub_key, self.seed, self.expires))
        text = _JOIN_PREFIX + to_text(body)
        return f"{text}.{_checksum(text)}"

    @classmethod
    def parse(cls, text: str, now: int) -> JoinString:
        """Read a join string at Unix second ``now``; raise BadJoinString with what is wrong with it."""
        again = "Copy the whole line again, or ask for a new one: wio node invite."
        text = "".join(text.split())
        if not text.startswith(_JOIN_PREFIX) or len(text) > _JOIN_LIMIT:
            raise BadJoinString(f"This is not a join string: those begin with {_JOIN_PREFIX}", todo=again)
        whole, dot, checksum = text.rpartition(".")
        if whole + dot == _JOIN_PREFIX or len(checksum) != len(_checksum("")):
            raise BadJoinString("The join string is cut off.", todo=again)
        if checksum != _checksum(whole):
            raise BadJoinString("The join string has a wrong character in it, or a part is missing.", todo=again)
        try:
            body = msgspec.msgpack.decode(from_text(whole[len(_JOIN_PREFIX) :]), type=_JoinBody)
            check_hub_url(body.hub_url)
        except (msgspec.MsgspecError, UnicodeDecodeError, BadMessage) as error:
            raise BadJoinString("The join string cannot be read.", todo=again) from error
        if now >= body.expires:
            raise BadJoinString("The join string has expired.", todo="Ask for a new one: wio node invite.")
        return cls(body.hub_url, body.hub_key, body.seed, body.expires)


def _checksum(text: str) -> str:
    return to_text(hashlib.sha256(b"wio join string\0" + text.encode()).digest()[:6])


def check_hub_url(url: str) -> str:
    """Return ``url`` if it can be a hub's: http or https, a host, no user, no query; else raise BadJoinString."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    else:
        good = good and "@" not in parts.netloc and not parts.query and not parts.fragment and url.isprintable()
    if not good:
        raise BadJoinString(
            "The hub's address is not an http or https address.", todo="It looks like https://hub.example, nothing behind it."
        )
    return url


# ---------------------------------------------------------------------------------------------------- statements


def sign_eviction(hub_key: Ed25519PrivateKey, node: int, at: int) -> Evict:
    """Say, as the hub, that this node is no longer wanted since Unix second ``at``."""
    return Evict(node, at, hub_key.sign(_EVICTION_TAG + _ENCODE.encode((node, at))))


def verify_eviction(hub_key: Ed25519PublicKey, evict: Evict, node: int) -> None:
    """Raise BadSignature unless the hub said it, of this node."""
    try:
        hub_key.verify(evict.signature, _EVICTION_TAG + _ENCODE.encode((evict.node, evict.at)))
    except InvalidSignature as error:
        raise BadSignature("An eviction is not signed by the hub; it was ignored.") from error
    if evict.node != node:
        raise BadSignature("An eviction of another node was ignored.")


class Assertion(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The hub's word that a person is who they say, for one node only. Times in Unix seconds."""

    node: Id
    person: Id
    username: Annotated[str, msgspec.Meta(max_length=40)]
    issued: Second
    expires: Second


class SignedAssertion(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An assertion as it travels. There is one algorithm, Ed25519, and no field to choose another."""

    body: Annotated[bytes, msgspec.Meta(max_length=1000)]
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


_ASSERTION_PREFIX: Final = "wioa1."
_ASSERTION_LIMIT: Final = 2000
_SIGNATURE_BYTES: Final = 64
_BODY_BYTES: Final = 1000


def assertion_text(signed: SignedAssertion) -> str:
    """Return an assertion as one line of text that fits an HTTP header: letters, digits, ``-``, ``_`` and two dots."""
    return f"{_ASSERTION_PREFIX}{to_text(signed.body)}.{to_text(signed.signature)}"


def read_assertion(text: str) -> SignedAssertion:
    """Read what ``assertion_text`` wrote, unverified; raise BadMessage for anything else, a newline at its end included."""
    body, dot, signature = text.removeprefix(_ASSERTION_PREFIX).partition(".")
    if not text.startswith(_ASSERTION_PREFIX) or not dot or len(text) > _ASSERTION_LIMIT:
        raise BadMessage("That is not an assertion.")
    signed = SignedAssertion(from_text(body), from_text(signature))
    if len(signed.signature) != _SIGNATURE_BYTES or len(signed.body) > _BODY_BYTES:
        raise BadMessage("That is not an assertion.")
    return signed


_CLOCKS_APART_S: Final = 60
"""How far a node's clock may be behind the hub's before an assertion looks made in the future."""


def sign_assertion(hub_key: Ed25519PrivateKey, assertion: Assertion) -> SignedAssertion:
    """Sign an assertion as the hub."""
    body = _ENCODE.encode(assertion)
    return SignedAssertion(body, hub_key.sign(_ASSERTION_TAG + body))


def open_assertion(hub_key: Ed25519PublicKey, signed: SignedAssertion, *, node: int, now: int) -> Assertion:
    """Return the assertion if the hub made it for this node and it holds at Unix second ``now``.

    Raises BadSignature, BadMessage, or NotSignedIn (for another node, from the future, expired).
    """
    try:
        hub_key.verify(signed.signature, _ASSERTION_TAG + signed.body)
    except InvalidSignature as error:
        raise BadSignature("The hub's signature on an assertion does not verify.") from error
    try:
        assertion = msgspec.msgpack.decode(signed.body, type=Assertion)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadMessage("A signed assertion cannot be read.") from error
    again = "Sign in again: wio login."
    if assertion.node != node:
        raise NotSignedIn("This assertion is for another node.", todo=again)
    if assertion.issued > now + _CLOCKS_APART_S:
        raise NotSignedIn("This assertion was made in the future.", todo="Check the clocks of the hub and this machine.")
    if now >= assertion.expires:
        raise NotSignedIn("This assertion has expired.", todo=again)
    return assertion
