"""B5: what searches cost while four read and one writes, with very many files in a thousand workspaces.

Measured at the engine, so that whatever serves ``search.engine.Engine`` can be measured with the same files and questions:
``measure_engine`` takes one. Above it a search costs the hub what LOAD says.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench.figure import Figure, percentile, rounded
from bench.rig import Rig
from search.document import Document
from search.engine import Asked, Engine, FacetKind
from search.query import parse
from search.tantivy import Tantivy

WORKSPACES: Final = 1000
READABLE: Final = (1, 50, 500)
READERS: Final = 4
SECONDS: Final = 10.0
"""For each number of readable workspaces."""
WRITES: Final = 100
"""Changes in one commit of the writer, which makes one after the other with BETWEEN_S in between."""
BETWEEN_S: Final = 0.05
LOADED: Final = 5_000
COMMITTED: Final = 50_000
_EPOCH: Final = 1_764_000_000_000_000_000
_KINDS: Final = ("nii.gz", "json", "dcm", "tsv", "txt", "csv", "h5", "png")
_WORDS: Final = (
    "brain",
    "scan",
    "rest",
    "task",
    "anat",
    "func",
    "dwi",
    "fmap",
    "control",
    "patient",
    "session",
    "final",
    "raw",
    "mean",
)
_DAY: Final = 86_400_000_000_000


class Measured(msgspec.Struct, frozen=True):
    """What one engine did: milliseconds of every search by question and number of readable workspaces."""

    built_per_s: float
    bytes_on_disk: int
    took: dict[int, dict[str, list[float]]]
    commits: int

    def all_of(self) -> list[float]:
        """Return every search there was."""
        return [one for asked in self.took.values() for took in asked.values() for one in took]


def measure(rig: Rig) -> Figure:
    """Measure the embedded engine."""
    with tempfile.TemporaryDirectory(prefix="wio-bench-index-") as folder:
        measured = asyncio.run(measure_engine(Tantivy(Path(folder)), rig.objects))
    return figure(measured, "the embedded engine", rig.objects)


def figure(measured: Measured, engine: str, objects: int) -> Figure:
    """Return what was measured as one line."""
    each = {
        f"{question}, {readable} ws": f"{percentile(took, 50):.1f}/{percentile(took, 99):.1f}"
        for readable, asked in measured.took.items()
        for question, took in asked.items()
    }
    every = measured.all_of()
    return Figure(
        what=f"search of {engine}, {READERS} readers and a writer, {WORKSPACES} workspaces; below p50/p99 ms",
        unit="ms",
        n=len(every),
        p50=rounded(percentile(every, 50)),
        p99=rounded(percentile(every, 99)),
        goal="p99 <= 50 ms",
        scale={
            "objects": objects,
            **each,
            "searches/s": rounded(len(every) / (SECONDS * len(READABLE))),
            "commits": measured.commits,
            "built objects/s": rounded(measured.built_per_s),
            "MiB on disk": rounded(measured.bytes_on_disk / 2**20),
        },
    )


async def measure_engine(engine: Engine, objects: int) -> Measured:
    """Fill an empty engine and search it. It is opened and closed here."""
    await engine.open()
    try:
        began = time.perf_counter()
        await _load(engine, objects)
        built = objects / (time.perf_counter() - began)
        took: dict[int, dict[str, list[float]]] = {}
        commits = 0
        revision = itertools.count(objects + 1)
        for readable in READABLE:
            took[readable] = {name: [] for name, _, _ in questions(0, objects)}
            commits += await _searched(engine, objects, readable, took[readable], revision)
        return Measured(built, (await engine.stats()).bytes_on_disk, took, commits)
    finally:
        await engine.close()


def document(number: int, revision: int) -> Document:
    """Return one file; the same number gives the same file."""
    chance = random.Random(number)  # noqa: S311 - made-up files
    kind = _KINDS[number % len(_KINDS)]
    word, other = chance.choice(_WORDS), chance.choice(_WORDS)
    path = f"sub-{number // 4000:04}/{word}/{other}_run-{number % 40:02}_{number:08}.{kind}"
    workspace = 1 + number % WORKSPACES
    key = f"workspace-{workspace:04}/{path}"
    return Document(1, workspace, key, path, int(1.6 ** chance.randrange(40)), _EPOCH - chance.randrange(900) * _DAY, revision)


def questions(turn: int, objects: int) -> Iterator[tuple[str, str, frozenset[FacetKind]]]:
    """Yield each question there is: its name, its words, what is counted by."""
    number = turn * 7919 % objects
    name = document(number, 1).path.rpartition("/")[2]
    word, other = _WORDS[turn % len(_WORDS)], _WORDS[turn // 3 % len(_WORDS)]
    yield "exact name", name, frozenset()
    yield "words", f"{word} {other}", frozenset()
    yield "ext+size", f"ext:{_KINDS[turn % len(_KINDS)]} size>1M", frozenset()
    yield "facets", word, frozenset({FacetKind.EXTENSION, FacetKind.WORKSPACE})


async def _load(engine: Engine, objects: int) -> None:
    for first in range(0, objects, LOADED):
        await engine.write([document(number, number + 1) for number in range(first, min(first + LOADED, objects))])
        if (first + LOADED) % COMMITTED == 0:
            await engine.commit(first + LOADED)
    await engine.commit(objects)


async def _searched(engine: Engine, objects: int, readable: int, took: dict[str, list[float]], revision: Iterator[int]) -> int:
    """Read and write for a while; returns how many commits there were."""
    end = time.perf_counter() + SECONDS
    turns = itertools.count()

    async def read(reader: int) -> None:
        chance = random.Random(reader)  # noqa: S311 - made-up people
        workspaces = frozenset(chance.sample(range(1, WORKSPACES + 1), readable))
        while time.perf_counter() < end:
            for name, words, facets in questions(next(turns), objects):
                asked = Asked(parse(words, time.time_ns()), workspaces, facets=facets)
                began = time.perf_counter()
                await engine.search(asked)
                took[name].append((time.perf_counter() - began) * 1000)

    async def write() -> int:
        commits = 0
        while time.perf_counter() < end:
            changes = [document(at * 104729 % objects, at) for at in itertools.islice(revision, WRITES)]
            await engine.write(changes)
            await engine.commit(changes[-1].revision)
            commits += 1
            await asyncio.sleep(BETWEEN_S)
        return commits

    *_, commits = await asyncio.gather(*(read(reader) for reader in range(READERS)), write())
    return int(commits or 0)
