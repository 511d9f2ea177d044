"""Run the benchmarks, print one table, write JSON."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench import b1, b2, b3, b4, b5, b6, b7, b8, directory, drift, extractors, groups, load, tree
from bench.figure import Figure
from bench.rig import OBJECTS, Rig, rig

POSTGRES: Final = "-PG"
"""Ends the name of a figure that is measured with a hub on PostgreSQL."""
ALL: Final[dict[str, Callable[[Rig], Figure]]] = {
    "B1": b1.measure,
    "B2": b2.measure,
    "B3": b3.measure,
    "B4": b4.measure,
    "B4-LOAD": partial(b4.measure, load=True),
    "B5": b5.measure,
    "B6": b6.measure,
    "B8": b8.measure,
    "LOAD": load.measure,
    **{f"B1-{grants}": partial(b1.measure, grants=grants) for grants in (50, 200)},
    **{f"B2-{grants}": partial(b2.measure, grants=grants) for grants in (50, 200)},
    **{f"B7-{grants}": partial(b7.measure, grants=grants) for grants in (1, 50, 200)},
    **{f"B7-{grants}-MIB": partial(b7.measure, grants=grants, size=b7.MIB) for grants in (1, 50, 200)},
    **{f"DIR-{grants}": partial(directory.measure, grants=grants) for grants in (1, 50, 200)},
    "TREE": tree.measure,
    "GROUP": groups.measure,
    "DRIFT": drift.measure,
    "EXTRACT": extractors.measure,
    **{f"{name}{POSTGRES}": measure for name, measure in (("B3", b3.measure), ("B6", b6.measure), ("LOAD", load.measure))},
}


def main() -> int:
    """Measure what was asked for, each on a federation of its own."""
    parser = argparse.ArgumentParser(description="Measure wio.")
    parser.add_argument("--only", default=",".join(ALL), help="figures by name: B1,B2")
    parser.add_argument("--scale", default=str(OBJECTS), help="objects, of figures that have a scale: 10000,100000,1000000")
    parser.add_argument("--out", type=Path, help="write JSON to this file")
    asked = parser.parse_args()
    names = asked.only.upper().split(",")
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"There is no figure {unknown[0]}; there are {', '.join(ALL)}.", file=sys.stderr)
        return 2
    scales = [int(scale) for scale in asked.scale.split(",")]
    figures: dict[str, Figure] = {}
    for name, scale in itertools.product(names, scales):
        label = name if len(scales) == 1 else f"{name}@{scale}"
        print(f"{label} …", file=sys.stderr, flush=True)
        with rig(objects=scale, on_postgres=name.endswith(POSTGRES)) as made:
            figures[label] = ALL[name](made)
        if asked.out:
            asked.out.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    show(figures)
    return 0


def show(figures: dict[str, Figure]) -> None:
    """Print the table."""
    table = Table(show_lines=True)
    for head in ("", "figure", "p50", "p99", "beside it", "p50", "p99", "ratio", "goal", "n"):
        table.add_column(head)
    for name, one in figures.items():
        table.add_row(
            name,
            f"{one.what} {', '.join(f'{key} {value}' for key, value in one.scale.items())}".strip(),
            f"{one.p50:g} {one.unit}",
            "" if one.p99 is None else f"{one.p99:g}",
            one.peer,
            "" if one.peer_p50 is None else f"{one.peer_p50:g}",
            "" if one.peer_p99 is None else f"{one.peer_p99:g}",
            "" if one.ratio is None else f"{one.ratio:.2f} x",
            one.goal,
            str(one.n),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    sys.exit(main())
