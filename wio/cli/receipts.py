"""What a share or unshare did, in words, and the exit code it means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import tzinfo

from protocol.api import ShareChange
from protocol.errors import Pending, WioError
from protocol.grants import ProbeProof, Receipt, ReceiptState, SubjectKind
from wio.cli.words import clock_time, count, day, safe, span

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
    node, reason = safe(one.node), _clause(one)
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


def together(receipts: Sequence[Receipt], zone: tzinfo | None = None) -> list[str]:
    """Say what became of a change that concerns several people, in few lines.

    People of whom a node says the same share a line: ``enforced on lab3 in 41 ms: 3 people's 5 outstanding keys were refused
    by 10:42:07.318``. What is not as it should be keeps a line of its own: a refusal, an unexpected answer to a probe.
    """
    alike: dict[tuple[str, ...], list[Receipt]] = {}
    for one in receipts:
        alike.setdefault(_alike(one), []).append(one)
    return [receipt(many[0], zone) if len(many) == 1 else _many(many, zone) for many in alike.values()]


def link(one: Receipt, zone: tzinfo | None = None) -> str:
    """Say what became of one link that was ended: ``dead in 12 ms; lab3 refused it at 10:42:07.318``."""
    node, reason = safe(one.node), _clause(one)
    if one.state is ReceiptState.REFUSED:
        return f"refused on {node}: {reason or 'the node gave no reason'}"
    if one.state is ReceiptState.PENDING:
        return _pending(one, node, reason)
    took = "" if one.enforced_at is None else f" in {span(max(one.enforced_at - one.asked_at, 0) / 1_000_000)}"
    odd = next((proof for proof in one.proofs if not proof.expected), None)
    if odd is not None:
        return f"{node} says it is dead, but {safe(odd.what)} was answered {odd.status} at {clock_time(odd.at, zone)}"
    tried = f"; {node} refused it at {clock_time(one.proofs[-1].at, zone)}" if one.proofs else ""
    return f"dead{took if one.keys_out else ''}{tried}" if one.keys_out or not reason else f"dead: {reason}"


def links(ended: Sequence[Receipt], asked: str) -> list[str]:
    """Say how many links ended with a share, for each node: ``1 link of bob's on scans is dead.``."""
    alike: dict[tuple[str, str, str, str], list[Receipt]] = {}
    for one in ended:
        alike.setdefault((one.subject.name.removesuffix("'s link"), one.state, one.node, _clause(one)), []).append(one)
    said = []
    for (maker, state, node, reason), many in sorted(alike.items()):
        start = f"{count(len(many), 'link')} of {safe(maker)}'s on {safe(asked)}"
        single = len(many) == 1
        if state == ReceiptState.ENFORCED:
            said.append(f"{start} {'is' if single else 'are'} dead.")
        elif state == ReceiptState.PENDING:
            longest = max((receipt.exposure_s or 0 for receipt in many), default=0)
            ends = "dies" if single else "die"
            said.append(f"{start} {ends} when {safe(node)} is back; at most {span(longest)} of exposure.")
        else:
            said.append(f"{start} {'was' if single else 'were'} not ended on {safe(node)}: {reason or 'it gave no reason'}.")
    return said


def exit_code(receipts: Iterable[Receipt]) -> int:
    """Return 1 if a node refused, 6 if one is still pending, else 0."""
    states = {one.state for one in receipts}
    if ReceiptState.REFUSED in states:
        return WioError.exit_code
    return Pending.exit_code if ReceiptState.PENDING in states else 0


def _alike(one: Receipt) -> tuple[str, ...]:
    """Return what two receipts have in common that can be said in one line."""
    if one.subject.kind is not SubjectKind.PERSON or not all(proof.expected for proof in one.proofs):
        return (one.id, one.node, one.subject.name)
    if one.state is not ReceiptState.ENFORCED:
        return one.node, one.state, one.reason
    if not one.keys_out:
        return one.node, one.state, "no keys"
    return one.node, one.state, *sorted({str(proof.status) for proof in one.proofs})


def _many(many: Sequence[Receipt], zone: tzinfo | None) -> str:
    """Say it of several people of one node at once."""
    first, node, reason = many[0], safe(many[0].node), _clause(many[0])
    number = len({one.subject.id for one in many})
    people = "1 person" if number == 1 else f"{number:,} people"
    if first.state is ReceiptState.REFUSED:
        return f"refused on {node} for {people}: {reason or 'the node gave no reason'}"
    if first.state is ReceiptState.PENDING:
        exposed = [one.exposure_s for one in many if one.exposure_s is not None]
        longest = f"; at most {span(max(exposed))} of exposure" if exposed else ""
        return f"pending on {node} for {people}: {reason or 'the node is offline'}{longest}"
    if not first.keys_out:
        return f"enforced on {node}: no key of these {people} is out"
    took = [max(one.enforced_at - one.asked_at, 0) / 1_000_000 for one in many if one.enforced_at is not None]
    start = f"enforced on {node}{f' in {span(max(took))}' if took else ''}: {people}'s"
    statuses = {proof.status for one in many for proof in one.proofs}
    if not statuses:
        return f"{start} keys were not tried"
    keys = count(sum(one.keys_out for one in many), "outstanding key")
    last = clock_time(max(proof.at for one in many for proof in one.proofs), zone)
    verdict = "refused" if statuses == {_REFUSED} else "let in" if _REFUSED not in statuses else "answered as they should be"
    return f"{start} {keys} were {verdict} by {last}"


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


def _clause(one: Receipt) -> str:
    """Return the reason as part of a sentence, whether it was a sentence of its own or not."""
    text = safe(one.reason).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text


def _whose(one: Receipt) -> str:
    return f"{_of(one)}'s"


def _of(one: Receipt) -> str:
    if one.subject.kind is SubjectKind.EVERYONE:
        return "everyone"
    name = safe(one.subject.name)
    return f"@{name.removeprefix('@')}" if one.subject.kind is SubjectKind.GROUP else name


def _who(who: str) -> str:
    return "everyone" if who == "public" else safe(who)
