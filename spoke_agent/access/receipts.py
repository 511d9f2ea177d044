"""Receipts: that a change holds is shown by the storage server's own answer to a key of that person.

For every person with a holder one probe key is kept, minted as their keys are and never handed out. It was out before the
change, as theirs were; what it gets afterwards is what they get. For shared access the agent has a person of its own, who
has nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from protocol.errors import WioError
from protocol.messages import WireProof
from spoke_agent.access.reach import Differs
from spoke_agent.storage.node import Answered, Credential, Holder, StorageNode

PROBE_LIFE_S: Final = 900
"""The shortest a MinIO mints."""
RENEW_S: Final = 60
"""A probe key with less life left is not used any more."""
PLACES: Final = 4
"""Places tried for what was taken away, and as many for what was given."""
PATIENCE_S: Final = (0.01, 0.03, 0.1)
"""Waits before a place that does not answer as it should is tried again: a cluster's other servers hear of it late."""
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
FIRST_BAD: Final = 300

Pause = Callable[[float], Awaitable[None]]


class Trial(msgspec.Struct, frozen=True):
    """Something to try, and whether it should be allowed."""

    what: Differs
    allowed: bool


class Receipts:
    """Keeps the probe keys and makes the proofs. ``clock`` in Unix microseconds."""

    def __init__(self, storage: StorageNode, clock: Callable[[], int], pause: Pause = asyncio.sleep) -> None:
        self._storage = storage
        self._clock = clock
        self._pause = pause
        self._keys: dict[str, Credential] = {}
        self._minting: dict[str, asyncio.Lock] = {}
        self._used: dict[str, int] = {}
        """Every probe key that may still be in use, and until when, Unix seconds."""

    async def key(self, holder: Holder) -> Credential:
        """Return a probe key of a person, minted now if there is none that lives long enough."""
        async with self._minting.setdefault(holder.name, asyncio.Lock()):
            known = self._keys.get(holder.name)
            if known is not None and known.expires - self._clock() // 1_000_000 > RENEW_S:
                return known
            minted = await self._storage.mint(holder, life_s=PROBE_LIFE_S, narrowing=None)
            self._keys[holder.name] = minted
            now = self._clock() // 1_000_000
            self._used = {key: expires for key, expires in self._used.items() if expires > now}
            self._used[minted.access_key] = minted.expires
            return minted

    def uses(self, access_key: str) -> bool:
        """Say whether this is a probe key: what is done with it, no person does."""
        return access_key in self._used

    def forget(self, holder: Holder) -> None:
        """Forget the probe key of a holder that is no longer used."""
        self._keys.pop(holder.name, None)
        self._minting.pop(holder.name, None)

    async def prove(self, key: Credential, lost: Sequence[Differs], gained: Sequence[Differs]) -> tuple[WireProof, ...]:
        """Try what was taken away and what was given, all at once; at most four places of each.

        A place that answers otherwise than it should is tried again for a moment, and then said as it is. What could not
        be tried at all proves nothing and is left out.
        """
        trials = [Trial(one, allowed=False) for one in lost[:PLACES]] + [Trial(one, allowed=True) for one in gained[:PLACES]]
        proofs = await asyncio.gather(*(self._try(key, trial) for trial in trials))
        return tuple(proof for proof in proofs if proof is not None)

    async def _try(self, key: Credential, trial: Trial) -> WireProof | None:
        proof: WireProof | None = None
        for wait in (*PATIENCE_S, None):
            try:
                answered = await self._storage.attempt(key, trial.what.permission, trial.what.place, None)
            except WioError:
                return proof
            proof = proof_of(answered, allowed=trial.allowed)
            if proof.expected or wait is None:
                break
            await self._pause(wait)
        return proof


def proof_of(answered: Answered, *, allowed: bool) -> WireProof:
    """Say whether an answer is the one that shows a place open, or closed."""
    opened = 0 < answered.status < FIRST_BAD or answered.status == NOT_FOUND
    expected = opened if allowed else answered.status == FORBIDDEN
    return WireProof(answered.what[:500], answered.status, answered.at, expected)
