"""Thousands of steps of people, groups, shares, quotas and outages on the real thing, beside a model that says what is right.

WIO_SOAK=1         10,000 steps instead of 300
WIO_SEED=n         other steps
WIO_MODEL_REPLAY=f the history that a failure has written down, and nothing else
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.model import reference, replaying
from tests.model.reference import DROP, MANAGE, PUBLIC, READ, WRITE, Given, Op, Quota
from tests.model.replaying import Plan, Played, play, read, shorter, told, written
from tests.model.state import ROOTS, State
from tests.model.world import Figures

SOAK = bool(os.environ.get("WIO_SOAK"))
SEED = int(os.environ.get("WIO_SEED", "20261125"))
REPLAY = os.environ.get("WIO_MODEL_REPLAY")
SHRINK_S = 3600.0 if SOAK else 60.0
RUNS = [Plan(SEED + number, shared_groups=bool(number % 2)) for number in range(10 if SOAK else 2)]
STEPS = 1000 if SOAK else 150
LONGEST_S = 3600.0 if SOAK else 40.0
"""A slow machine plays fewer steps."""


@pytest.mark.soak
@pytest.mark.real
@pytest.mark.timeout(7200 if SOAK else 400)
@pytest.mark.skipif(REPLAY is not None, reason="another history is played")
@pytest.mark.parametrize("plan", RUNS, ids=lambda plan: f"{plan.seed}{'-shared-groups' if plan.shared_groups else ''}")
def test_nobody_reaches_more_than_the_model_allows_nor_less(
    plan: Plan, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    played = play(tmp_path / "first", plan, STEPS, seconds=LONGEST_S)
    figures = played.figures
    print(figures)  # noqa: T201 - what a soak run is for
    for name in ("steps", "tries", "keys", "seconds"):
        record_property(name, getattr(figures, name))
    if played.wrong is not None:
        file = tmp_path / "history.jsonl"
        file.write_text(written(played))
        least = shorter(tmp_path, played, seconds=SHRINK_S)
        file.write_text(written(least))
        pytest.fail(told(least, file), pytrace=False)
    assert figures.steps > 20
    assert figures.tries > 10 * figures.steps


@pytest.mark.real
@pytest.mark.timeout(0)
@pytest.mark.skipif(REPLAY is None, reason="WIO_MODEL_REPLAY names no history")
def test_a_history_that_was_written_down_goes_well_now(tmp_path: Path) -> None:
    plan, steps = read(Path(str(REPLAY)).read_text())
    played = play(tmp_path / "again", plan, steps)
    if played.wrong is not None:
        raise played.wrong


# The reference decides what is a fault: what it says is said here in examples, from the documents.


@pytest.fixture
def state() -> State:
    """alice's workspace in the private root, bob's in the public one."""
    made = State()
    made.create({"by": "alice", "name": "a", "root": "homes", "public": False})
    made.create({"by": "bob", "name": "b", "root": "open", "public": False})
    return made


def opens(state: State, who: str, number: int = 0, now: float = 100.0) -> set[Op]:
    return set(state.opens(who, state.facts.workspaces[number].place, now))


def test_the_model_gives_what_was_given_and_no_more(state: State) -> None:
    shares = state.facts.workspaces[0].shares
    assert opens(state, "alice") == set(Op)
    assert opens(state, "bob") == set()
    shares["bob"] = Given(READ, until=101)
    assert opens(state, "bob") == {Op.GET, Op.LIST}
    assert opens(state, "bob", now=101) == set()
    state.facts.groups["red"] = {"carol"}
    shares["@red"] = Given(DROP)
    shares["carol"] = Given(READ)
    assert opens(state, "carol") == {Op.GET, Op.LIST, Op.OWN}
    shares[PUBLIC] = Given(WRITE)
    assert opens(state, "dave") == set(Op)
    assert opens(state, "dave", 1) == {Op.GET, Op.LIST}
    state.delete(1)
    assert state.opens("dave", ROOTS["open"].place("bob/b"), 100) == {Op.GET, Op.LIST}, "a public root is open as a whole"


def test_the_model_takes_away_what_archive_quota_ceiling_and_pause_take(state: State) -> None:
    one = state.facts.workspaces[0]
    one.shares |= {"bob": Given(MANAGE), "carol": Given(DROP)}
    quota = state.facts.quotas["user", "alice"] = Quota("user", "alice", 10, over=True)
    assert opens(state, "alice") == opens(state, "bob") == {Op.GET, Op.LIST, Op.DELETE}
    assert opens(state, "carol") == set()
    state.hand_over(0, "dave", WRITE)
    assert opens(state, "alice") == set(Op), "the owner is charged, and that is dave now"
    quota.over = False
    one.archived = True
    assert opens(state, "dave") == {Op.GET, Op.LIST}
    assert (state.facts.shown("carol", 0, 100), state.facts.knows("carol", 0, 100)) == (None, True)
    one.archived = False
    state.ruled_read_only = True
    assert opens(state, "dave") == {Op.GET, Op.LIST}
    state.paused = True
    assert opens(state, "dave") == set()


def test_the_model_lets_a_quota_go_when_a_margin_is_free() -> None:
    assert [reference.exceeded(used, 1000, before=False) for used in (999, 1000)] == [False, True]
    assert [reference.exceeded(used, 1000, before=True) for used in (499, 500)] == [False, True]
    gib = 1 << 30
    assert [reference.exceeded(used, gib, before=True) for used in (gib - gib // 100 - 1, gib - gib // 100)] == [False, True]


def test_while_its_node_is_away_the_model_keeps_what_was_and_knows_what_is_wanted(state: State) -> None:
    one = state.facts.workspaces[0]
    one.shares["bob"] = Given(READ, until=200)
    state.cut_off(100, frozen=True)
    one.shares.clear()
    assert opens(state, "bob", now=300) == {Op.GET, Op.LIST}, "nobody is there to end it"
    assert state.wanted("bob", one.place, 300) == frozenset()
    state.frozen_at = None
    assert opens(state, "bob", now=300) == set()


def test_a_history_is_read_as_it_was_written() -> None:
    plan = Plan(7, shared_groups=True)
    steps = [{"do": "share", "by": "alice", "on": 0, "with": "bob", "permission": "read"}, {"do": "pause", "on": True}]
    assert read(written(Played(plan, steps, None, Figures()))) == (plan, steps)


def test_a_history_that_goes_wrong_is_cut_down_to_the_steps_that_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def plays(folder: Path, plan: Plan, steps: list[dict[str, Any]]) -> Played:
        del folder
        there = [step["do"] for step in steps]
        wrong = AssertionError("as before") if "share" in there and there[-1:] == ["pause"] else None
        return Played(plan, steps, wrong, Figures())

    monkeypatch.setattr(replaying, "play", plays)
    noise = [{"do": "describe", "number": number} for number in range(40)]
    steps = [*noise[:23], {"do": "share"}, *noise[23:], {"do": "pause"}]
    least = shorter(tmp_path, plays(tmp_path, Plan(7), steps), seconds=10)
    assert (least.steps, str(least.wrong)) == ([{"do": "share"}, {"do": "pause"}], "as before")
