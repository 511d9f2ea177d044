"""How many audit events come at once follows their rate, and does not swing."""

from __future__ import annotations

from spoke_agent.storage.batching import BUSY, CALM, CALM_LOOKS, KEEP_S, MANY, SINGLE, Batching

BEAT = 15.0


class Rate:
    """Looks at a batching every fifteen seconds, at the rate a test says."""

    def __init__(self) -> None:
        self.batching = Batching()
        self.now, self.received = 1000.0, 0
        self.changes: list[tuple[float, int]] = []
        self.batching.look(0, self.now)

    def beat(self, rate: float, times: int = 1) -> None:
        for _ in range(times):
            self.now += BEAT
            self.received += int(rate * BEAT)
            size = self.batching.look(self.received, self.now)
            if size is not None:
                self.batching.change(size, self.now)
                self.changes.append((self.now, size))


def test_few_events_come_one_by_one_and_many_together() -> None:
    rate = Rate()
    rate.beat(BUSY - 1, 10)
    assert rate.batching.size == SINGLE
    rate.beat(BUSY + 1)
    assert rate.batching.size == MANY
    rate.beat(CALM + 1, 4 * CALM_LOOKS)
    assert rate.batching.size == MANY, "between the two marks nothing changes"
    rate.beat(1, CALM_LOOKS)
    assert rate.batching.size == SINGLE


def test_one_busy_look_in_between_begins_the_calm_anew() -> None:
    rate = Rate()
    rate.beat(BUSY * 2)
    for _ in range(5):
        rate.beat(1, CALM_LOOKS - 1)
        rate.beat(CALM + 10)
    assert rate.batching.size == MANY


def test_whatever_the_rate_does_there_is_no_second_change_within_a_minute() -> None:
    import random  # noqa: PLC0415 - of this test alone

    chance = random.Random(5)  # noqa: S311 - it repeats itself
    rate = Rate()
    rate.batching = Batching(calm_looks=1)
    for _ in range(3000):
        rate.beat(chance.choice((0, 1, CALM, BUSY, 10 * BUSY)))
    gaps = [after[0] - before[0] for before, after in zip(rate.changes, rate.changes[1:], strict=False)]
    assert len(gaps) > 100
    assert min(gaps) >= KEEP_S


def test_a_clock_that_stands_still_changes_nothing() -> None:
    batching = Batching()
    assert batching.look(0, 5.0) is None
    assert batching.look(10**9, 5.0) is None
    assert batching.look(10**9, 4.0) is None
