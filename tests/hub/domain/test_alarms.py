"""What is an alarm, from when on, since when, and when it is over."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hub.domain.alarms import DAY_US, MICRO, NodeFacts, RootFacts, Thresholds, Turn, Watch, by_node, is_behind
from protocol.api import AlarmKind
from protocol.messages import RootActivity

NOW = 1_800_000_000 * MICRO
IDLE, MISSING, FAILING = RootActivity.IDLE, RootActivity.MISSING, RootActivity.FAILING
WELL = RootFacts(7, "lab3/main", NOW - DAY_US, activity=IDLE, age_s=2.0, scanned_at=NOW - DAY_US // 24, interval=DAY_US // 4)
NODE = NodeFacts(3, "lab3", online=True, heard=True, seen_at=NOW, roots=(WELL,))


def node(**changes: Any) -> NodeFacts:
    root = {name: changes.pop(name) for name in list(changes) if name in RootFacts.__struct_fields__ and name != "id"}
    return msgspec.structs.replace(NODE, roots=(msgspec.structs.replace(WELL, **root),), **changes)


class Looking:
    """A watch that looks every five seconds."""

    def __init__(self, **options: Any) -> None:
        self.watch = Watch(Thresholds(), began=options.pop("began", NOW - DAY_US), **options)
        self.now = NOW

    def look(self, *nodes: NodeFacts, seconds: float = 0.0) -> Turn:
        turn = self.watch.look(nodes, self.now)
        end = self.now + int(seconds * MICRO)
        while self.now < end:
            self.now += 5 * MICRO
            later = self.watch.look(nodes, self.now)
            turn = Turn((*turn.raised, *later.raised), (*turn.cleared, *later.cleared), later.standing)
        return turn


def kinds(turn: Turn) -> list[tuple[AlarmKind, str]]:
    return [(one.key.kind, one.root or one.node) for one in turn.standing]


def test_a_node_that_is_well_raises_nothing() -> None:
    assert Looking().look(NODE, seconds=600) == Turn((), (), ())


def test_a_node_that_is_away_for_five_minutes_is_an_alarm_since_it_was_last_seen() -> None:
    it = Looking()
    away = node(online=False, seen_at=NOW - 100 * MICRO)
    assert it.look(away, seconds=195).raised == ()
    turn = it.look(away, seconds=10)
    assert kinds(turn) == [(AlarmKind.OFFLINE, "lab3")]
    assert turn.standing[0].since == NOW - 100 * MICRO
    assert it.look(away, seconds=600) == Turn((), (), turn.standing), "raised once"
    over = it.look(NODE)
    assert (over.raised, over.cleared, over.standing) == ((), turn.standing, ())


def test_what_nodes_could_not_say_while_the_hub_was_stopped_is_no_alarm() -> None:
    it = Looking(began=NOW)
    away = node(online=False, heard=False, seen_at=NOW - DAY_US)
    assert it.look(away, seconds=295).standing == ()
    assert it.look(away, seconds=10).standing[0].since == NOW - DAY_US, "but since when it is true"


def test_an_alarm_outlasts_a_restart_with_its_beginning_and_is_not_raised_anew() -> None:
    before = Looking().look(node(online=False, seen_at=NOW - 400 * MICRO))
    it = Looking(began=NOW, standing=before.standing)
    turn = it.look(node(online=False, heard=False, seen_at=NOW - 400 * MICRO), seconds=600)
    assert (turn.raised, turn.cleared, turn.standing) == ((), (), before.standing)
    assert it.look(node(heard=False)).cleared == before.standing


@pytest.mark.parametrize(
    ("facts", "kind", "about"),
    [
        (node(age_s=61.0), AlarmKind.BEHIND, "lab3/main"),
        (node(age_s=61.0, activity=FAILING), AlarmKind.BEHIND, "lab3/main"),
        (node(age_s=None), AlarmKind.BEHIND, "lab3/main"),
        (node(growing_since=NOW - 61 * MICRO, pending_rows=5), AlarmKind.BEHIND, "lab3"),
        (node(activity=MISSING), AlarmKind.MISSING, "lab3/main"),
        (node(drifted_at=NOW - 5), AlarmKind.DRIFTED, "lab3/main"),
        (node(warnings=("disk nearly full", "x")), AlarmKind.WARNING, "lab3"),
        (node(scanned_at=NOW - DAY_US), AlarmKind.UNSCANNED, "lab3/main"),
        (node(scanned_at=NOW - 8 * DAY_US, interval=0), AlarmKind.UNSCANNED, "lab3/main"),
        (node(scanned_at=0, created_at=NOW - 8 * DAY_US, interval=0), AlarmKind.UNSCANNED, "lab3/main"),
    ],
)
def test_what_is_wrong_is_one_alarm_with_what_to_do(facts: NodeFacts, kind: AlarmKind, about: str) -> None:
    it = Looking()
    turn = it.look(facts, seconds=40)
    assert kinds(turn) == [(kind, about)]
    assert len(turn.raised) == 1
    assert turn.standing[0].since <= NOW
    assert turn.standing[0].message.endswith((".", "(1 more)"))
    assert turn.standing[0].todo
    assert it.look(NODE).standing == ()


@pytest.mark.parametrize(
    "facts",
    [
        node(age_s=59.0),
        node(age_s=10_000.0, activity=RootActivity.SCANNING),
        node(age_s=None, activity=RootActivity.WAITING),
        node(growing_since=NOW - 300 * MICRO, activity=RootActivity.SCANNING, age_s=400.0),
        node(scanned_at=NOW - 6 * DAY_US, interval=3 * DAY_US),
        node(scanned_at=NOW - 6 * DAY_US, interval=0),
    ],
)
def test_what_is_as_it_should_be_is_none(facts: NodeFacts) -> None:
    assert Looking().look(facts, seconds=40).standing == ()


def test_what_passes_by_itself_alarms_nobody() -> None:
    it = Looking()
    for _ in range(5):
        assert it.look(node(warnings=("scans failed",)), seconds=25).standing == ()
        assert it.look(NODE, seconds=5).standing == ()


def test_what_was_wrong_with_a_node_that_is_away_is_neither_over_nor_new() -> None:
    it = Looking()
    wrong = it.look(node(activity=MISSING), seconds=40).standing
    away = node(activity=MISSING, online=False, seen_at=NOW, warnings=("disk nearly full",))
    assert it.look(away, seconds=60) == Turn((), (), wrong)
    assert it.look(node(heard=False)).standing == wrong
    assert it.look(NODE).cleared == wrong


def test_alarms_go_with_their_root_and_their_node() -> None:
    it = Looking()
    it.look(node(drifted_at=NOW - 5))
    assert len(it.look(msgspec.structs.replace(NODE, roots=())).cleared) == 1
    it.look(node(drifted_at=NOW - 5))
    assert len(it.look().cleared) == 1


def test_people_see_a_nodes_alarms_the_oldest_first() -> None:
    standing = Looking().look(node(drifted_at=NOW - 5, scanned_at=NOW - 2 * DAY_US)).standing
    assert [one.kind for one in by_node(standing)[3]] == [AlarmKind.UNSCANNED, AlarmKind.DRIFTED]


@pytest.mark.parametrize(
    ("facts", "behind"),
    [
        ({}, False),
        ({"indexed": False, "age_s": None}, False),
        ({"online": False}, True),
        ({"age_s": None}, True),
        ({"age_s": 16.0}, True),
        ({"drifted": True}, True),
        ({"activity": MISSING}, True),
        ({"activity": FAILING}, True),
        ({"activity": RootActivity.SCANNING}, False),
    ],
)
def test_a_root_is_behind_where_a_search_of_it_may_miss_something(facts: dict[str, Any], behind: bool) -> None:
    usual: dict[str, Any] = {"online": True, "age_s": 3.0, "activity": IDLE, "drifted": False}
    assert is_behind(**(usual | facts)) is behind
