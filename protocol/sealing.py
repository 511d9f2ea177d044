"""Sealing: a storage key travels from the agent to the client so that nobody between them can read it.

HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, by ``cryptography``. The context (which
node, which person, which request, for which client key) is HPKE's ``info``, so a sealed key fits one request only. The node
signs what it sealed together with that context and the expiry, so its origin can be checked with the pinned node key.
The randomness of the encapsulation is the library's own: it is the one random draw that cannot be passed in.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from protocol.errors import BadMessage, BadSignature
from protocol.identity import public_key
from protocol.messages import SealedCredential

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_SEAL_TAG: Final = b"wio sealed credential v1\0"
_LINK_TAG: Final = b"wio sealed link v1\0"
_SIGN_TAG: Final = b"wio credential origin v1\0"


class ClearCredential(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A storage key as its holder uses it. ``expires`` in Unix seconds. ``repr`` shows no secret."""

    access_key: str
    secret_key: str
    session_token: str
    expires: int
    endpoint: str
    region: str

    def __repr__(self) -> str:
        return f"ClearCredential({self.access_key} at {self.endpoint})"


class ClearLink(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A presigned request as its holder uses it: whoever has the ``url`` may make it. ``repr`` shows no signature."""

    method: str
    url: str
    expires: int

    def __repr__(self) -> str:
        return f"ClearLink({self.method} until {self.expires})"


class Context(msgspec.Struct, frozen=True, array_like=True):
    """What a sealed key is bound to: the node, the person (subject id), the client's request, its X25519 public key."""

    node: int
    subject: int
    request: int
    client_key: bytes


_ENCODE = msgspec.msgpack.Encoder()
_KEY_DECODE = msgspec.msgpack.Decoder(ClearCredential)
_LINK_DECODE = msgspec.msgpack.Decoder(ClearLink)
_Clear = TypeVar("_Clear", ClearCredential, ClearLink)


def client_key(private: X25519PrivateKey) -> bytes:
    """Return the 32 public bytes a client sends along with its request."""
    return private.public_key().public_bytes_raw()


def seal(node_key: Ed25519PrivateKey, context: Context, credential: ClearCredential) -> SealedCredential:
    """Seal a key to the client of ``context`` and sign it as this node; raise BadMessage for an unusable client key."""
    return _seal(node_key, context, _SEAL_TAG, _ENCODE.encode(credential), credential.expires)


def seal_link(node_key: Ed25519PrivateKey, context: Context, link: ClearLink) -> SealedCredential:
    """Seal a presigned link the same way; it opens as nothing else. Raises BadMessage for an unusable client key."""
    return _seal(node_key, context, _LINK_TAG, _ENCODE.encode(link), link.expires)


def open_sealed(private: X25519PrivateKey, node_key: bytes, context: Context, credential: SealedCredential) -> ClearCredential:
    """Open what ``seal`` sealed.

    Raises BadSignature if the node did not make it for this context, BadMessage if it cannot be opened or read.
    """
    return _open(private, node_key, context, credential, _SEAL_TAG, _KEY_DECODE)


def open_link(private: X25519PrivateKey, node_key: bytes, context: Context, credential: SealedCredential) -> ClearLink:
    """Open what ``seal_link`` sealed. Raises BadSignature, BadMessage, as ``open_sealed`` does."""
    return _open(private, node_key, context, credential, _LINK_TAG, _LINK_DECODE)


def _seal(node_key: Ed25519PrivateKey, context: Context, tag: bytes, clear: bytes, expires: int) -> SealedCredential:
    try:
        recipient = X25519PublicKey.from_public_bytes(context.client_key)
        sealed = _SUITE.encrypt(clear, recipient, info=tag + _ENCODE.encode(context))
    except (ValueError, InvalidTag) as error:  # wrong length, or a point of low order
        raise BadMessage("The client's key is not a usable X25519 key.") from error
    return SealedCredential(sealed, node_key.sign(_signed(context, sealed, expires)), expires)


def _open(  # noqa: PLR0917 - the four that callers have, and which of two kinds it is
    private: X25519PrivateKey,
    node_key: bytes,
    context: Context,
    credential: SealedCredential,
    tag: bytes,
    decoder: msgspec.msgpack.Decoder[_Clear],
) -> _Clear:
    try:
        public_key(node_key).verify(credential.signature, _signed(context, credential.sealed, credential.expires))
    except InvalidSignature as error:
        raise BadSignature(
            "A key arrived that this node did not make for this request.", todo="Do not use it; tell the hub's operator."
        ) from error
    try:
        opened = decoder.decode(_SUITE.decrypt(credential.sealed, private, info=tag + _ENCODE.encode(context)))
    except (ValueError, InvalidTag, msgspec.MsgspecError) as error:
        raise BadMessage("A sealed key cannot be opened: it was sealed for another client or request.") from error
    if opened.expires != credential.expires:
        raise BadMessage("A sealed key carries another expiry than its envelope says.")
    return opened


def _signed(context: Context, sealed: bytes, expires: int) -> bytes:
    return _SIGN_TAG + _ENCODE.encode((context, sealed, expires))
