"""What a share or unshare did, in words, and the exit code it means. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import tzinfo

from protocol.api import ShareChange
from protocol.errors import Pending, WioError
from protocol.grants import ProbeProof, Receipt, ReceiptState, SubjectKind
from wio.cli.words import clock_time, day, safe, span

_REFUSED = 403
"""The status with which a storage server refuses a key."""


def change(done: ShareChange, asked: str, zone: tzinfo | None = None) -> str:
    """Say what changed, as in ``scans is no longer shared with bob (write, since 2026-03-02)``."""
    name, who = safe(asked), _who(done.who)
    since = f", since {day(done.since, zone)}" if done.since is not None else ""
    if done.after is None:
        return f"{name} is no longer shared with {who}" + (f" ({done.before.value}{since})." if done.before else ".")
    if done.before is None:
        return f"{name} is now shared with {who} ({done.after.value})."
    if done.before is done.after:
        return f"{name} stays shared with {who} ({done.after.value}{since})."
    return f"{name} is now shared with {who} ({done.after.value}, before that {done.before.value})."


def receipt(one: Receipt, zone: tzinfo | None = None) -> str:
    """Say what became of it on one node: ``enforced on lab3 in 41 ms: bob's outstanding key was refused at 10:42:07.318``."""
    node, reason = safe(one.node), safe(one.reason)
    if one.state is ReceiptState.REFUSED:
        return f"refused on {node}: {reason or 'the node gave no reason'}"
    if one.state is ReceiptState.PENDING:
        return _pending(one, node, reason)
    took = "" if one.enforced_at is None else f" in {span(max(one.enforced_at - one.asked_at, 0) / 1_000_000)}"
    told = [_proof(one, proof, zone) for proof in one.proofs]
    if not told or (reason and not one.keys_out):
        took = took if one.keys_out else ""  # nothing had to be done there
        told = [reason or (f"{_whose(one)} keys were not tried" if one.keys_out else f"no key of {_of(one)} is out")]
    return f"enforced on {node}{took}: {'; '.join(told)}"


def exit_code(receipts: Iterable[Receipt]) -> int:
    """Return 1 if a node refused, 6 if one is still pending, else 0."""
    states = {one.state for one in receipts}
    if ReceiptState.REFUSED in states:
        return WioError.exit_code
    return Pending.exit_code if ReceiptState.PENDING in states else 0


def _pending(one: Receipt, node: str, reason: str) -> str:
    why = reason or "the node is offline"
    if one.exposure_s is None:
        return f"pending on {node}: {why}"
    return f"pending on {node}: {why}; at most {span(one.exposure_s)} of exposure"


def _proof(one: Receipt, proof: ProbeProof, zone: tzinfo | None) -> str:
    at = clock_time(proof.at, zone)
    if not proof.expected:
        return f"but {safe(proof.what)} with a key of {_of(one)} was answered {proof.status} at {at}"
    if not one.keys_out:
        return f"a probe key of {_of(one)} was answered {proof.status} at {at}"
    keys = f"{_whose(one)} outstanding key" if one.keys_out == 1 else f"{_whose(one)} {one.keys_out} outstanding keys"
    verb = "was" if one.keys_out == 1 else "were"
    return f"{keys} {verb} {'refused' if proof.status == _REFUSED else 'let in'} at {at}"


def _whose(one: Receipt) -> str:
    return "everyone's" if one.subject.kind is SubjectKind.EVERYONE else f"{safe(one.subject.name)}'s"


def _of(one: Receipt) -> str:
    return "everyone" if one.subject.kind is SubjectKind.EVERYONE else safe(one.subject.name)


def _who(who: str) -> str:
    return "everyone" if who == "public" else safe(who)
