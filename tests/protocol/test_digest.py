"""The two fingerprints: of a journal and of a root's content."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from protocol.digest import EMPTY_RUN, MODULUS, combine, object_number, run_on
from protocol.messages import Change, Row

OBJECTS = st.tuples(st.text(max_size=8), st.integers(0, 2**63 - 1), st.integers(0, 2**62), st.text(max_size=4))


@given(st.lists(OBJECTS, max_size=8), st.lists(OBJECTS, max_size=4), st.randoms(use_true_random=False))
def test_a_digest_does_not_depend_on_order_or_on_what_came_and_went(
    stay: list[tuple[str, int, int, str]], go: list[tuple[str, int, int, str]], random: object
) -> None:
    numbers = [object_number(*o) for o in stay]
    gone = [object_number(*o) for o in go]
    shuffled = list(numbers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    whole = combine(0, added=numbers)
    assert combine(0, added=shuffled) == whole
    assert combine(combine(combine(0, added=gone), added=numbers), removed=gone) == whole
    assert combine(whole, removed=numbers) == 0
    assert 0 <= whole < MODULUS


def test_an_object_counted_twice_does_not_vanish() -> None:
    number = object_number("a", 1, 2, "e")
    assert combine(0, added=(number, number)) not in {0, number}


def test_every_part_of_an_object_counts_and_parts_do_not_run_into_one_another() -> None:
    objects = [
        ("a", 1, 2, "e"),
        ("a1", 1, 2, "e"),
        ("a", 11, 2, "e"),
        ("a", 1, 22, "e"),
        ("a", 1, 2, "2e"),
        ("", 1, 2, "e"),
        ("a:1", 1, 2, "e"),
    ]
    numbers = {object_number(*o) for o in objects}
    assert len(numbers) == len(objects)
    assert all(0 <= n < MODULUS for n in numbers)
    assert object_number("\ud800", 0, 0, "") != object_number("?", 0, 0, "")


def test_a_running_hash_tells_every_row_their_order_and_where_batches_do_not_matter() -> None:
    rows = [Row(Change.PUT, 1, "a", 1, 2, "e", 3), Row(Change.DELETE, 1, "a"), Row(Change.PUT, 2, "a", 1, 2, "e", 3)]
    whole = run_on(EMPTY_RUN, rows)
    assert run_on(run_on(EMPTY_RUN, rows[:1]), rows[1:]) == whole
    assert run_on(whole, ()) == whole
    assert len({run_on(EMPTY_RUN, order) for order in itertools.permutations(rows)}) == 6
    assert run_on(EMPTY_RUN, rows[:2]) != whole
    assert len(whole) == 32
