"""SIGKILL at any moment: the file that is left opens, agrees with itself, and the work goes on from it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spoke_agent.index.spans import Span
from tests.spoke_agent.index.conftest import Bench, MemoryNode, config_of

OBJECTS = 2_000

WORKER = """
import asyncio, sys
from pathlib import Path
from tests.spoke_agent.index.conftest import Bench, MemoryNode, config_of
from tests.spoke_agent.index.test_crash import same_storage

async def main():
    node = same_storage()
    bench = Bench(Path(sys.argv[1]), node)
    await bench.start()
    await bench.ledger.configure(1, [config_of(1)])
    print("begun", flush=True)
    while True:
        await bench.scanner.scan_root(1)
        await bench.sync()
        # Everything goes and comes back: there is always something to write.
        objects, node.objects[1] = node.objects[1], {}
        await bench.scanner.scan_root(1)
        node.objects[1] = objects

asyncio.run(main())
"""


def same_storage() -> MemoryNode:
    """The same objects in every process."""
    node = MemoryNode(page=50)
    node.make_root(1)
    node.identities[1] = "the same"
    for number in range(OBJECTS):
        node.put(1, f"f{number % 10}/k{number:05}", "")
    node.borders = ["", "f3/", "f6/"]
    return node


@pytest.mark.parametrize("seed", range(3))
async def test_a_process_killed_in_the_middle_leaves_a_file_that_goes_on(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    path = tmp_path / "index.sqlite"
    for _ in range(3):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE)  # noqa: ASYNC220 - it is killed below
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"begun\n"
        try:
            worker.wait(chance.uniform(0.0, 0.3))
        except subprocess.TimeoutExpired:
            os.kill(worker.pid, signal.SIGKILL)
        assert worker.wait(10) == -signal.SIGKILL
        worker.stdout.close()
    bench = Bench(path, same_storage())
    await bench.start()
    kept, recounted, _ = await bench.ledger.recount(1)
    assert kept == recounted
    assert kept.objects == len(await bench.ledger.known(1, Span()))
    assert await bench.database.run(lambda c: c.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
    await bench.ledger.configure(1, [config_of(1)])
    bench.schedule.request_all()
    await bench.quiet()
    await bench.sync()
    await bench.check(1)
    await bench.stop()
