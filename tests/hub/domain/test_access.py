"""May this person do this, and why."""

import itertools

import pytest

from hub.domain.access import Allowed, Denied, Held, decide
from protocol.grants import Permission

DROP, READ, WRITE, MANAGE = Permission.DROP, Permission.READ, Permission.WRITE, Permission.MANAGE


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [(DROP, {DROP}), (READ, {READ}), (WRITE, {DROP, READ, WRITE}), (MANAGE, {DROP, READ, WRITE, MANAGE})],
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
