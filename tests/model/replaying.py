"""Playing a history of steps from a seed, or again from what was written down, and finding a shorter one that fails too.

A driver of our own instead of hypothesis' state machine: a world (hub, MinIO, agent) takes seconds to start, cannot be reset,
and time really passes in it; a run is hundreds of steps; hypothesis starts anew for each example and each attempt to shrink
one. Here a run is one long history in one world, and only a failure pays for more worlds.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.running import NotStarted
from protocol.errors import WioError
from tests.model.steps import Chooser, Step
from tests.model.world import Figures, World

CAUGHT = (AssertionError, WioError, TimeoutError, OSError, NotStarted)


class Plan(NamedTuple):
    """How a world is set up. Together with the steps it is everything that a run depends on but time."""

    seed: int
    shared_groups: bool = False
    all_of_it: bool = False


class Played(NamedTuple):
    """A run: its steps, what went wrong at the last of them if anything did, and its figures."""

    plan: Plan
    steps: list[Step]
    wrong: Exception | None
    figures: Figures


def play(folder: Path, plan: Plan, steps: Sequence[Step] | int, *, seconds: float = math.inf) -> Played:
    """Play these steps, or so many chosen ones, or as many as are possible in this time."""
    chooser, played = Chooser(random.Random(plan.seed)), []  # noqa: S311 - repeatable on purpose
    chance = random.Random(plan.seed + 1)  # noqa: S311 - repeatable on purpose
    with World(folder, chance=chance, shared_groups=plan.shared_groups, all_of_it=plan.all_of_it) as world:
        end = time.monotonic() + seconds
        try:
            for number in range(steps if isinstance(steps, int) else len(steps)):
                if time.monotonic() > end:
                    break
                step = chooser.next(world.state) if isinstance(steps, int) else steps[number]
                played.append(step)
                if not world.play(step):
                    played.pop()
        except CAUGHT as error:
            return Played(plan, played, error, world.figures)
        return Played(plan, played, None, world.figures)


def shorter(folder: Path, failed: Played, *, seconds: float) -> Played:
    """Return a shorter history that goes wrong as well, as far as one is found in this time."""
    end, best, size = time.monotonic() + seconds, failed, max(1, len(failed.steps) // 2)
    plan = failed.plan._replace(all_of_it=True)
    number = 0
    while size and time.monotonic() < end:
        at, found = 0, False
        while at < len(best.steps) - 1 and time.monotonic() < end:
            number += 1
            without = best.steps[:at] + best.steps[min(at + size, len(best.steps) - 1) :]
            tried = play(folder / f"shorter-{number}", plan, without)
            if tried.wrong is not None:
                best, found = tried, True
            else:
                at += size
        size = size if found and size > 1 else size // 2
    return best


def written(played: Played) -> str:
    """Write a history down: what ``read`` takes, a line each."""
    lines = [json.dumps(played.plan._asdict()), *(json.dumps(step) for step in played.steps)]
    return "\n".join(lines) + "\n"


def read(text: str) -> tuple[Plan, list[Step]]:
    """Read what ``written`` wrote."""
    first, *steps = text.splitlines()
    return Plan(**json.loads(first)), [json.loads(step) for step in steps]


def told(played: Played, file: Path) -> str:
    """Say what went wrong and how to play it again."""
    return (
        f"After {len(played.steps)} steps: {played.wrong!r}\n{played.wrong}\n\n{written(played)}\n"
        f"Play it again: WIO_MODEL_REPLAY={file} python -m pytest tests/model"
    )
