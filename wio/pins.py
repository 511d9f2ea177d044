"""The keys of nodes, remembered at first sight: a node that signs with another key later is refused.

The hub relays sealed storage keys and says which node made them. A client that has seen a node before needs no word of the
hub about that node's key, so a hub that swaps the recipient or the node is noticed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from protocol.errors import BadSetting, BadSignature
from protocol.identity import fingerprint, from_text, to_text
from protocol.names import shown
from wio import private

_File = dict[str, dict[str, str]]


class Pins:
    """The file of known nodes: hub -> node name -> Ed25519 public key, base64url."""

    def __init__(self, path: Path, hub: str) -> None:
        self._path = path
        self._hub = hub

    def key(self, node: str) -> bytes | None:
        """Return the 32 bytes remembered for a node, None where it was never seen."""
        text = self._read().get(self._hub, {}).get(node)
        return None if text is None else from_text(text)

    def check(self, node: str, key: bytes) -> bool:
        """Return whether this key of a node is the remembered one; False where none is. Raises BadSignature if it differs."""
        known = self.key(node)
        if known is not None and known != key:
            raise BadSignature(
                f"Node {shown(node)} signs with another key than before: {fingerprint(key)}, and it was {fingerprint(known)}. "
                "Its owner joined it anew, or somebody stands between you and it.",
                todo=f"Ask its owner for the fingerprint; if {fingerprint(key)} is right: wio node trust {node}",
            )
        return known is not None

    def remember(self, node: str, key: bytes) -> None:
        """Take this key as the node's from now on."""
        with private.locked(self._path):
            known = self._read()
            known.setdefault(self._hub, {})[node] = to_text(key)
            private.write(self._path, msgspec.json.format(msgspec.json.encode(known), indent=2) + b"\n")

    def _read(self) -> _File:
        content = private.read(self._path)
        if content is None:
            return {}
        try:
            return msgspec.json.decode(content, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadSetting(
                f"{shown(str(self._path))} cannot be read: {error}.",
                todo="Remove it; nodes are then trusted at first sight again.",
            ) from error
