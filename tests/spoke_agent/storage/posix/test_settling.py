"""When a place that changes is looked at. Time is passed in."""

from __future__ import annotations

from spoke_agent.storage.posix.settling import MAX_PLACES, Settling, Spot

A, B = Spot("lab", "a"), Spot("lab", "b/", folder=True)


def test_a_change_is_looked_at_at_once_and_only_once() -> None:
    settling = Settling(2.0)
    settling.touch(A, 10.0, complete=True)
    settling.touch(A, 10.01, complete=True)
    assert settling.due(10.02) == [A]
    assert settling.due(20.0) == []
    assert settling.next_in(20.0) is None


def test_a_file_that_is_being_written_is_looked_at_now_and_then_and_when_it_is_done() -> None:
    settling = Settling(2.0)
    looks = []
    for step in range(1000):
        now = step * 0.01
        if step < 700:
            settling.touch(A, now, complete=False)
        looks += [now for _ in settling.due(now)]
    assert looks[0] == 0.0
    assert 4 <= len(looks) <= 6
    assert looks[-1] >= 6.99, "the last write is looked at too"


def test_a_file_that_is_closed_is_looked_at_without_waiting_for_it_to_settle() -> None:
    settling = Settling(2.0)
    settling.touch(A, 0.0, complete=True)
    assert settling.due(0.0) == [A]
    settling.touch(A, 0.1, complete=False)
    settling.touch(A, 0.2, complete=True)
    assert settling.next_in(0.2) is not None
    assert settling.due(0.5) == [A]


def test_places_do_not_wait_for_each_other() -> None:
    settling = Settling(2.0)
    settling.touch(A, 0.0, complete=True)
    settling.due(0.0)
    settling.touch(A, 0.1, complete=False)
    settling.touch(B, 0.1, complete=True)
    assert settling.due(0.1) == [B]
    assert settling.due(2.1) == [A]


def test_what_is_remembered_is_bounded() -> None:
    settling = Settling(2.0)
    for number in range(MAX_PLACES * 2):
        settling.touch(Spot("lab", str(number)), 0.0, complete=True)
    assert len(settling.due(0.0)) == MAX_PLACES * 2
    settling.due(0.1)
    assert len(settling) <= MAX_PLACES
    settling.due(3.0)
    assert len(settling) == 0
