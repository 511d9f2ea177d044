"""What a benchmark says: one figure, its peer, and the ratio of the two."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the table. ``unit`` is ``ms`` or a rate; the ratio is always figure by peer."""

    what: str
    unit: str
    n: int
    p50: float
    p99: float | None = None
    peer: str = ""
    peer_p50: float | None = None
    peer_p99: float | None = None
    ratio: float | None = None
    goal: str = ""
    scale: dict[str, int | float | str] = {}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which ``percent`` of all lie (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, round(percent / 100 * (len(ranked) - 1)))]


def timed(work: Callable[[], object]) -> float:
    """Return how many milliseconds ``work`` took."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def rounded(value: float) -> float:
    """Return a number with three digits that mean something."""
    return float(f"{value:.3g}")


def compare(
    what: str,
    unit: str,
    values: Sequence[float],
    peer: str,
    peer_values: Sequence[float],
    *,
    goal: str,
    scale: dict[str, int | float | str] | None = None,
) -> Figure:
    """Make the figure of many measurements and as many of a peer; the ratio is of the medians."""
    p50, peer_p50 = percentile(values, 50), percentile(peer_values, 50)
    return Figure(
        what=what,
        unit=unit,
        n=len(values),
        p50=rounded(p50),
        p99=rounded(percentile(values, 99)),
        peer=peer,
        peer_p50=rounded(peer_p50),
        peer_p99=rounded(percentile(peer_values, 99)),
        ratio=rounded(p50 / peer_p50),
        goal=goal,
        scale=scale or {},
    )
