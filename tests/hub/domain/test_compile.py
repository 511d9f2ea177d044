"""From what is given to what a node enforces."""

import msgspec
import pytest

from hub.domain.compile import MOST, Opening, OpenRoot, compile_grants, entrance, takes_away
from protocol.errors import BadInput, BadName
from protocol.grants import Grant, Permission
from protocol.names import Layout, Place

NOW = 1_800_000_000_000_000
DROP, READ, WRITE, MANAGE = Permission.DROP, Permission.READ, Permission.WRITE, Permission.MANAGE


def opening(**changes: object) -> Opening:
    base = Opening(7, Layout.PREFIX, "lab", "data/", "alice/scans/", READ)
    return msgspec.structs.replace(base, **changes)


def test_a_workspace_becomes_its_place_on_the_server() -> None:
    bucket = opening(workspace=8, layout=Layout.BUCKET, prefix="alice--scans/", permission=WRITE)
    assert compile_grants([opening(), bucket], dropper="bob", now=NOW) == (
        Grant(7, "lab", "data/alice/scans/", READ),
        Grant(8, "lab--alice--scans", "", WRITE),
    )


def test_who_may_only_drop_gets_a_folder_of_their_own() -> None:
    assert compile_grants([opening(permission=DROP)], dropper="bob", now=NOW) == (
        Grant(7, "lab", "data/alice/scans/bob/", DROP),
    )
    assert entrance(Place("b", ""), DROP, "bob") == Place("b", "bob/")
    assert entrance(Place("b", "x/"), WRITE, "bob") == Place("b", "x/")
    assert entrance(Place("b", "x/"), DROP, None) == Place("b", "x/")


def test_a_droppers_name_cannot_leave_the_workspace() -> None:
    with pytest.raises(BadName):
        entrance(Place("b", "x/"), DROP, "..")


def test_what_has_run_out_is_left_out_and_what_will_never_outlives_its_second() -> None:
    over, later = opening(expires_at=NOW), opening(workspace=8, expires_at=NOW + 1_999_999)
    assert compile_grants([over, later], dropper="bob", now=NOW) == (
        Grant(8, "lab", "data/alice/scans/", READ, (NOW + 1_000_000) // 1_000_000),
    )


def test_a_public_root_is_one_grant_and_swallows_what_it_opens_anyway() -> None:
    inside, writable = opening(), opening(workspace=8, prefix="alice/wiki/", permission=WRITE)
    ending = opening(workspace=9, prefix="alice/x/", expires_at=NOW + 5_000_000)
    elsewhere = opening(workspace=10, bucket="other")
    grants = compile_grants([inside, writable, ending, elsewhere], roots=[OpenRoot("lab", "data/")], dropper=None, now=NOW)
    assert [grant.workspace for grant in grants] == [0, 8, 10]
    assert grants[0] == Grant(0, "lab", "data/", READ)


def test_the_order_of_what_is_given_does_not_matter() -> None:
    many = [opening(workspace=at, prefix=f"alice/w{at}/") for at in range(1, 20)]
    assert compile_grants(many, dropper="b", now=NOW) == compile_grants(many[::-1], dropper="b", now=NOW)


def test_more_than_a_server_carries_is_said_plainly() -> None:
    many = [opening(workspace=at, prefix=f"alice/w{at}/") for at in range(1, MOST + 2)]
    assert len(compile_grants(many[:-1], dropper="b", now=NOW)) == MOST
    with pytest.raises(BadInput, match=f"{MOST + 1} grants.*carries {MOST}"):
        compile_grants(many, dropper="b", now=NOW)


A = Grant(1, "lab", "a/", WRITE)


@pytest.mark.parametrize(
    ("after", "taken"),
    [
        ((A,), False),
        ((), True),
        ((Grant(1, "lab", "a/", MANAGE),), False),
        ((Grant(1, "lab", "a/", READ),), True),
        ((Grant(1, "lab", "a/", DROP),), True),
        ((Grant(2, "lab", "", WRITE),), False),
        ((Grant(1, "lab", "a/b/", WRITE),), True),
        ((Grant(1, "other", "a/", WRITE),), True),
        ((Grant(1, "lab", "a/", WRITE, 100),), True),
        ((Grant(1, "lab", "a/", READ), Grant(3, "lab", "b/", MANAGE)), True),
    ],
)
def test_taking_away_is_told_from_giving(after: tuple[Grant, ...], taken: bool) -> None:
    assert takes_away((A,), after) is taken
    assert takes_away((), after) is False


def test_an_earlier_end_takes_away_and_a_later_one_does_not() -> None:
    ending = Grant(1, "lab", "a/", READ, 100)
    assert takes_away((ending,), (Grant(1, "lab", "a/", READ, 99),))
    assert not takes_away((ending,), (Grant(1, "lab", "a/", READ, 101),))
    assert not takes_away((ending,), (Grant(1, "lab", "a/", READ),))
    assert takes_away((Grant(1, "lab", "a/", READ),), (ending,))


def test_of_several_ways_into_one_workspace_only_what_adds_something_is_kept() -> None:
    ends = NOW + 5_000_000
    ways = [opening(), opening(permission=WRITE), opening(permission=READ, expires_at=ends), opening(permission=DROP)]
    assert [(one.prefix, one.permission) for one in compile_grants(ways, dropper="bob", now=NOW)] == [
        ("data/alice/scans/", WRITE)
    ]
    ways = [opening(), opening(permission=DROP)]  # neither includes the other
    assert len(compile_grants(ways, dropper="bob", now=NOW)) == len(ways)
    for order in (1, -1):
        both = [opening(), opening(permission=WRITE, expires_at=ends)][::order]
        kept = {(one.permission, one.expires) for one in compile_grants(both, dropper="bob", now=NOW)}
        assert kept == {(READ, None), (WRITE, ends // 1_000_000)}
