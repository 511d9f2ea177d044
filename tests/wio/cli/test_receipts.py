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
        (
            receipt(state=ReceiptState.PENDING, enforced_at=None, exposure_s=60, reason="The node's agent is away."),
            "pending on lab3: the node's agent is away; at most 1 min of exposure",
        ),
        (receipt(reason="No key of bob is out."), "enforced on lab3: no key of bob is out"),
        (receipt(state=ReceiptState.PENDING, enforced_at=None), "pending on lab3: the node is offline"),
        (receipt(state=ReceiptState.REFUSED, enforced_at=None, reason="over the ceiling"), "refused on lab3: over the ceiling"),
    ],
)
def test_a_receipt_says_what_became_of_the_change(one: Receipt, text: str) -> None:
    assert receipts.receipt(one, UTC) == text


def person(number: int, **more: object) -> Receipt:
    return receipt(Subject(SubjectKind.PERSON, number, f"p{number}"), **more)  # type: ignore[arg-type]


def test_people_of_whom_a_node_says_the_same_share_a_line() -> None:
    refused = ProbeProof("GET lab/scans/a", 403, AT + 9_000, expected=True)
    given = (
        person(1, keys_out=1, proofs=(proof(403),)),
        person(2, keys_out=3, proofs=(refused,), enforced_at=AT + 9_000),
        person(3, keys_out=1, proofs=(proof(403),)),
        *(person(number, reason=f"p{number} holds no key on lab3") for number in (4, 5)),
    )
    assert receipts.together(given, UTC) == [
        "enforced on lab3 in 50 ms: 3 people's 5 outstanding keys were refused by 10:42:07.327",
        "enforced on lab3: no key of these 2 people is out",
    ]


def test_a_line_for_many_never_hides_what_is_not_as_it_should_be() -> None:
    let_in = person(3, keys_out=1, proofs=(proof(200, expected=False),))
    given = (person(1, keys_out=1, proofs=(proof(403),)), let_in, person(2, keys_out=1, proofs=(proof(403),)))
    lines = receipts.together(given, UTC)
    assert lines[0].startswith("enforced on lab3 in 41 ms: 2 people's 2 outstanding keys were refused")
    assert lines[1] == receipts.receipt(let_in, UTC)
    assert "p3 was answered 200" in lines[1]


def test_pending_and_refused_people_are_counted_with_the_longest_exposure() -> None:
    waits = {"state": ReceiptState.PENDING, "enforced_at": None, "reason": "lab3 is offline"}
    refused = {"state": ReceiptState.REFUSED, "enforced_at": None, "reason": "over the ceiling"}
    given = (person(1, exposure_s=60, **waits), person(2, exposure_s=2220, **waits), person(3, **refused), person(4, **refused))
    assert receipts.together(given, UTC) == [
        "pending on lab3 for 2 people: lab3 is offline; at most 37 min of exposure",
        "refused on lab3 for 2 people: over the ceiling",
    ]


@pytest.mark.parametrize("subject", [EVERYONE, Subject(SubjectKind.GROUP, 9, "mri")])
def test_everyone_and_large_groups_keep_lines_of_their_own(subject: Subject) -> None:
    given = (receipt(subject, keys_out=2, proofs=(proof(403),)), person(1, keys_out=1, proofs=(proof(403),)))
    assert receipts.together(given, UTC) == [receipts.receipt(one, UTC) for one in given]


def test_a_groups_receipt_names_it_as_people_write_it() -> None:
    said = receipts.receipt(receipt(Subject(SubjectKind.GROUP, 9, "mri"), keys_out=2, proofs=(proof(403),)), UTC)
    assert said == "enforced on lab3 in 41 ms: @mri's 2 outstanding keys were refused at 10:42:07.318"


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
