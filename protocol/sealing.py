"""Sealing: a storage key travels from the agent to the client so that nobody between them can read it.

HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, by ``cryptography``. The context (which
node, which person, which request, for which client key) is HPKE's ``info``, so a sealed key fits one request only. The node
signs what it sealed together with that context and the expiry, so its origin can be checked with the pinned node key.
The randomness of the encapsulation is the library's own: it is the one random draw that cannot be passed in.
"""

from __future__ import annotations

from typing import Final

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


class Context(msgspec.Struct, frozen=True, array_like=True):
    """What a sealed key is bound to: the node, the person (subject id), the client's request, its X25519 public key."""

    node: int
    subject: int
    request: int
    client_key: bytes


_ENCODE = msgspec.msgpack.Encoder()
_DECODE = msgspec.msgpack.Decoder(ClearCredential)


def client_key(private: X25519PrivateKey) -> bytes:
    """Return the 32 public bytes a client sends along with its request."""
    return private.public_key().public_bytes_raw()


def seal(node_key: Ed25519PrivateKey, context: Context, credential: ClearCredential) -> SealedCredential:
    """Seal a key to the client of ``context`` and sign it as this node; raise BadMessage for an unusable client key."""
    try:
        recipient = X25519PublicKey.from_public_bytes(context.client_key)
        sealed = _SUITE.encrypt(_ENCODE.encode(credential), recipient, info=_SEAL_TAG + _ENCODE.encode(context))
    except (ValueError, InvalidTag) as error:  # wrong length, or a point of low order
        raise BadMessage("The client's key is not a usable X25519 key.") from error
    return SealedCredential(sealed, node_key.sign(_signed(context, sealed, credential.expires)), credential.expires)


def open_sealed(private: X25519PrivateKey, node_key: bytes, context: Context, credential: SealedCredential) -> ClearCredential:
    """Open what ``seal`` sealed.

    Raises BadSignature if the node did not make it for this context, BadMessage if it cannot be opened or read.
    """
    try:
        public_key(node_key).verify(credential.signature, _signed(context, credential.sealed, credential.expires))
    except InvalidSignature as error:
        raise BadSignature(
            "A key arrived that this node did not make for this request.", todo="Do not use it; tell the hub's operator."
        ) from error
    try:
        clear = _SUITE.decrypt(credential.sealed, private, info=_SEAL_TAG + _ENCODE.encode(context))
        opened = _DECODE.decode(clear)
    except (ValueError, InvalidTag, msgspec.MsgspecError) as error:
        raise BadMessage("A sealed key cannot be opened: it was sealed for another client or request.") from error
    if opened.expires != credential.expires:
        raise BadMessage("A sealed key carries another expiry than its envelope says.")
    return opened


def _signed(context: Context, sealed: bytes, expires: int) -> bytes:
    return _SIGN_TAG + _ENCODE.encode((context, sealed, expires))
