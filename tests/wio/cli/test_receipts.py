"""Receipts in words."""

from __future__ import annotations

from datetime import UTC

import pytest

from protocol.api import ShareChange
from protocol.grants import Permission, ProbeProof, Receipt, ReceiptState, Subject, SubjectKind
from wio.cli import receipts

AT = 1_772_448_127_318_000
"""2026-03-02 10:42:07.318 UTC."""
BOB = Subject(SubjectKind.PERSON, 2, "bob")
EVERYONE = Subject(SubjectKind.EVERYONE, 0, "everyone")


def proof(status: int, *, expected: bool = True) -> ProbeProof:
    return ProbeProof("GET lab/scans/a", status, AT, expected)


def receipt(subject: Subject = BOB, state: ReceiptState = ReceiptState.ENFORCED, **more: object) -> Receipt:
    return Receipt("7f3a", "lab3", subject, 4, state, AT - 41_000, **{"enforced_at": AT, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (
            receipt(keys_out=1, proofs=(proof(403),)),
            "enforced on lab3 in 41 ms: bob's outstanding key was refused at 10:42:07.318",
        ),
        (
            receipt(keys_out=3, proofs=(proof(403),)),
            "enforced on lab3 in 41 ms: bob's 3 outstanding keys were refused at 10:42:07.318",
        ),
        (
            receipt(keys_out=1, proofs=(proof(200),)),
            "enforced on lab3 in 41 ms: bob's outstanding key was let in at 10:42:07.318",
        ),
        (
            receipt(EVERYONE, keys_out=1, proofs=(proof(403),)),
            "enforced on lab3 in 41 ms: everyone's outstanding key was refused at 10:42:07.318",
        ),
        (receipt(proofs=(proof(403),)), "enforced on lab3 in 41 ms: a probe key of bob was answered 403 at 10:42:07.318"),
        (receipt(reason="bob holds no key on lab3"), "enforced on lab3: bob holds no key on lab3"),
        (receipt(), "enforced on lab3: no key of bob is out"),
        (receipt(keys_out=2), "enforced on lab3 in 41 ms: bob's keys were not tried"),
        (
            receipt(keys_out=1, proofs=(proof(200, expected=False),)),
            "enforced on lab3 in 41 ms: but GET lab/scans/a with a key of bob was answered 200 at 10:42:07.318",
        ),
        (
            receipt(state=ReceiptState.PENDING, enforced_at=None, exposure_s=2220, reason="node offline"),
            "pending on lab3: node offline; at most 37 min of exposure",
        ),
        (receipt(state=ReceiptState.PENDING, enforced_at=None), "pending on lab3: the node is offline"),
        (receipt(state=ReceiptState.REFUSED, enforced_at=None, reason="over the ceiling"), "refused on lab3: over the ceiling"),
    ],
)
def test_a_receipt_says_what_became_of_the_change(one: Receipt, text: str) -> None:
    assert receipts.receipt(one, UTC) == text


def change(before: Permission | None, after: Permission | None, *, since: int | None = AT, who: str = "bob") -> ShareChange:
    return ShareChange("alice/scans", who, before, after, since, ())


@pytest.mark.parametrize(
    ("done", "text"),
    [
        (change(Permission.WRITE, None), "scans is no longer shared with bob (write, since 2026-03-02)."),
        (change(None, Permission.READ), "scans is now shared with bob (read)."),
        (change(None, Permission.READ, who="public"), "scans is now shared with everyone (read)."),
        (change(Permission.READ, Permission.WRITE), "scans is now shared with bob (write, before that read)."),
        (change(Permission.READ, Permission.READ), "scans stays shared with bob (read, since 2026-03-02)."),
        (change(Permission.READ, None, since=None), "scans is no longer shared with bob (read)."),
    ],
)
def test_a_change_is_one_sentence(done: ShareChange, text: str) -> None:
    assert receipts.change(done, "scans", UTC) == text


def test_the_exit_code_is_that_of_the_worst_receipt() -> None:
    done, pending, refused = (receipt(state=state) for state in ReceiptState)
    assert receipts.exit_code([]) == 0
    assert receipts.exit_code([done, done]) == 0
    assert receipts.exit_code([done, pending]) == 6
    assert receipts.exit_code([pending, refused]) == 1


def test_a_node_or_person_with_a_hostile_name_cannot_steer_the_terminal() -> None:
    text = receipts.receipt(receipt(Subject(SubjectKind.PERSON, 1, "b\x1b[2J"), keys_out=1, proofs=(proof(403),)), UTC)
    assert "\x1b" not in text
