"""Plays a scenario: people work, a fault happens, everything is healed, and then everybody must agree on what there is.

A scenario is a function that makes its fault happen and, where that is part of it, ends it. Each is played once per seed:
once or a few times in ``make test``, twenty times in ``make soak`` (WIO_SOAK). A failure says the scenario, the seed, what
the wires did, and the end of every log; WIO_SEED plays another seed first.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final, TypeAlias

import pytest

from tests.faults.stand import Place, Stand
from tests.faults.work import Work

SOAK: Final = bool(os.environ.get("WIO_SOAK"))
SEEDS: Final = 20 if SOAK else 1
FIRST: Final = int(os.environ.get("WIO_SEED", "1"))


@dataclass
class Run:
    """What a scenario has to do with. ``chance`` is its own, of scenario and seed alone."""

    stand: Stand
    place: Place
    work: Work
    chance: random.Random


Scenario: TypeAlias = Callable[[Run], None]


def played(scenarios: Sequence[Scenario], *, rare: Sequence[Scenario] = ()) -> Any:
    """Return the parametrization of a test: every scenario with every seed; those that are ``rare`` in long runs only."""
    chosen = [*scenarios, *(rare if SOAK else ())]
    cases = [pytest.param(one, seed, id=f"{one.__name__}-{seed}") for one in chosen for seed in range(FIRST, FIRST + SEEDS)]
    return pytest.mark.parametrize(("scenario", "seed"), cases)


def play(stand: Stand, scenario: Scenario, seed: int, *, exactly: bool = True) -> None:
    """Play a scenario on a stand that works, and see that it works again afterwards, with nothing lost and nothing twice.

    ``exactly``: keys that were out before still open all that the grants say; else no more than that.
    """
    chance = random.Random(f"{scenario.__name__}-{seed}")  # noqa: S311 - repeatable on purpose
    try:
        place = stand.place(scenario.__name__)
        run = Run(stand, place, place.work(chance), chance)
        with run.work.going():
            run.work.more(15)
            scenario(run)
            stand.heal()
            run.work.more(10)
        place.settled()
        stand.check_access(exactly=exactly)
    except BaseException as error:
        error.add_note(f"scenario {scenario.__name__}, seed {seed} (WIO_SEED={seed} plays it first)\n{stand.said()}")
        raise


class Stands:
    """Gives a stand that works: the same again and again, a new one where a scenario has failed or spoilt it."""

    def __init__(self, *, new_database: Callable[[], str] | None = None) -> None:
        """``new_database`` gives the URL of an empty one for each stand; without it each has a SQLite file of its own."""
        # In memory where there is such a place: nothing here cuts the power, and what a SIGKILL leaves is the same.
        memory = Path("/dev/shm")  # noqa: S108 - what is made there has a random name, and is ours alone
        self._folder = Path(mkdtemp(prefix="wio-faults-", dir=memory if os.access(memory, os.W_OK) else None))
        self._new_database = new_database
        self._stand: Stand | None = None
        self._made = 0

    def get(self) -> Stand:
        """Return the stand, set up when there is none."""
        if self._stand is None:
            self._made += 1
            url = None if self._new_database is None else self._new_database()
            self._stand = Stand(self._folder / f"stand-{self._made}", self._made, database_url=url).__enter__()
        return self._stand

    def drop(self) -> None:
        """Stop it."""
        stand, self._stand = self._stand, None
        if stand is not None:
            stand.__exit__()
            shutil.rmtree(stand.folder)

    def close(self) -> None:
        """Stop what runs, and leave nothing behind."""
        self.drop()
        shutil.rmtree(self._folder)

    def play(self, scenario: Scenario, seed: int, *, own: bool = False, exactly: bool = True) -> None:
        """Play a scenario; ``own``: on a stand that nobody uses afterwards."""
        try:
            play(self.get(), scenario, seed, exactly=exactly)
        except BaseException:
            self.drop()
            raise
        if own:
            self.drop()
