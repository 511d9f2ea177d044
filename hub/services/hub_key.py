"""The hub's signing key and the other keys made from WIO_SECRET.

The Ed25519 key signs grant sets, challenges and evictions; agents pin its public half, so it lives as long as the hub. It
lies in table ``settings``, sealed: a database or a backup alone signs nothing. Every use of the secret has a key of its
own (HKDF with a label), so that none of them says anything about another.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import insert, select

from hub.db.database import Database
from hub.db.tables import settings
from hub.services.ports import Chance
from protocol.errors import BadSetting
from protocol.identity import new_key

ROW: Final = "hub_key"
_NONCE: Final = 12
_SEED: Final = 32
_BOUND_TO: Final = b"wio hub key v1"
"""Associated data: a value copied into another row does not open."""


class SecretKeys:
    """The keys made from WIO_SECRET. ``repr`` shows none of them."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return "SecretKeys()"

    @property
    def hub_key(self) -> bytes:
        """Seals the hub's signing key; 32 bytes."""
        return self._derive(b"wio hub key sealing v1")

    @property
    def cursors(self) -> bytes:
        """Authenticates the page cursors of searches and listings; 32 bytes."""
        return self._derive(b"wio page cursors v1")

    def _derive(self, label: bytes) -> bytes:
        return HKDF(hashes.SHA256(), 32, salt=None, info=label).derive(self._secret)


async def open_hub_key(database: Database, keys: SecretKeys, chance: Chance) -> Ed25519PrivateKey:
    """Return the hub's key, made and stored at the first call. Raises BadSetting if another secret sealed it."""
    async with database.write() as connection:
        sealed = await connection.scalar(select(settings.c.value).where(settings.c.name == ROW))
        if sealed is None:
            seed = chance.secret(_SEED)
            nonce = chance.secret(_NONCE)
            sealed = nonce + AESGCM(keys.hub_key).encrypt(nonce, seed, _BOUND_TO)
            await connection.execute(insert(settings).values(name=ROW, value=sealed))
            return new_key(seed)
    try:
        return new_key(AESGCM(keys.hub_key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _BOUND_TO))
    except (InvalidTag, ValueError) as error:  # ValueError: fewer bytes than a seal has
        raise BadSetting(
            "WIO_SECRET is not the secret this hub was started with: it does not open the hub's signing key.",
            todo="Set the secret that belongs to this database. Every node trusts that key and no other.",
        ) from error
