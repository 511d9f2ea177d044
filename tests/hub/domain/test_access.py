"""May this person do this, and why."""

import itertools

import pytest

from hub.domain.access import Allowed, Denied, Held, decide
from protocol.grants import Permission

DROP, READ, TIDY, WRITE = Permission.DROP, Permission.READ, Permission.TIDY, Permission.WRITE
MANAGE = Permission.MANAGE


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [
        (DROP, {DROP}),
        (READ, {READ}),
        (TIDY, {READ, TIDY}),
        (WRITE, {DROP, READ, TIDY, WRITE}),
        (MANAGE, {DROP, READ, TIDY, WRITE, MANAGE}),
    ],
)
def test_a_grant_allows_what_its_word_means_and_nothing_else(granted: Permission, allowed: set[Permission]) -> None:
    assert {want for want in Permission if isinstance(decide(Held(granted=granted), want), Allowed)} == allowed


def test_the_owner_may_do_everything() -> None:
    for want in Permission:
        assert decide(Held(owner=True), want) == Allowed(MANAGE, "owns it")


def test_somebody_without_anything_does_not_even_learn_that_it_is_there() -> None:
    for want in Permission:
        assert decide(Held(), want) == Denied("nobody gave access to it", known=False)
    assert Held().strongest is None


def test_somebody_with_too_little_learns_what_they_have() -> None:
    denied = decide(Held(granted=READ), WRITE)
    assert denied == Denied("was given read on it, which does not include write", known=True)


def test_a_public_root_gives_reading_and_nothing_more() -> None:
    assert decide(Held(public_root=True), READ) == Allowed(READ, "it lies in a public root")
    assert isinstance(decide(Held(public_root=True), DROP), Denied)


def test_several_sources_add_up_even_where_neither_includes_the_other() -> None:
    both = Held(granted=DROP, everyone=READ)
    assert decide(both, DROP) == Allowed(DROP, "was given drop on it")
    assert decide(both, READ) == Allowed(READ, "it is shared with everyone for read")
    assert isinstance(decide(both, WRITE), Denied)
    assert both.strongest is READ


def test_more_held_never_allows_less() -> None:
    options = [None, *Permission]
    for granted, everyone, public, want in itertools.product(options, options, [False, True], Permission):
        if isinstance(decide(Held(granted=granted, everyone=everyone), want), Allowed):
            assert isinstance(decide(Held(granted=granted, everyone=everyone, public_root=public), want), Allowed)
            assert isinstance(decide(Held(owner=True, granted=granted, everyone=everyone), want), Allowed)


def test_of_equal_sources_the_most_personal_is_the_reason() -> None:
    assert decide(Held(owner=True, granted=MANAGE, everyone=READ), MANAGE) == Allowed(MANAGE, "owns it")
    assert decide(Held(granted=READ, everyone=READ, public_root=True), READ) == Allowed(READ, "was given read on it")


def test_a_group_is_a_source_among_others_and_is_named() -> None:
    both = Held(granted=READ, groups=(("mri", WRITE), ("nmr", DROP)))
    assert decide(both, WRITE) == Allowed(WRITE, "is in @mri, which was given write")
    assert decide(Held(granted=READ, groups=(("mri", READ),)), READ) == Allowed(READ, "was given read on it")
    assert decide(Held(groups=(("nmr", DROP),)), READ) == Denied(
        "is in @nmr, which was given drop, which does not include read", known=True
    )


def test_an_archived_workspace_is_read_by_all_and_changed_by_nobody_but_managed_as_before() -> None:
    for holds in (Held(owner=True, archived=True), Held(groups=(("mri", MANAGE),), archived=True)):
        assert holds.strongest is READ
        for want in (TIDY, DROP, WRITE):
            assert decide(holds, want) == Denied("it is archived, so everybody can only read it", known=True)
        assert isinstance(decide(holds, READ), Allowed)
        assert isinstance(decide(holds, MANAGE), Allowed)
    dropper = Held(granted=DROP, archived=True)
    assert (dropper.strongest, dropper.known) == (None, True)
    assert isinstance(decide(dropper, READ), Denied)
