"""What only the embedded engine can show: crashes, damage, two processes at once."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import Conflict, Internal
from protocol.fields import fitted
from search.document import Document, Gone
from search.engine import Asked, FacetKind, Sort
from search.fields import FORMAT
from search.query import parse
from search.tantivy import Tantivy

KEYS = 300


def history(first: int, count: int) -> list[Document | Gone]:
    """Return changes ``first`` … of one history that every process of these tests knows."""
    return [
        Gone(1, f"k{r * 7919 % KEYS}", r)
        if r % 7 == 0
        else Document(1, 1, f"k{r * 7919 % KEYS}", f"folder/k{r * 7919 % KEYS}.txt", r, r, r)
        for r in range(first, first + count)
    ]


def after(position: int) -> dict[str, int]:
    """Return what is there after ``position`` changes: key to size."""
    living: dict[str, int] = {}
    for change in history(1, position):
        if isinstance(change, Document):
            living[change.key] = change.size
        else:
            living.pop(change.key, None)
    return living


async def content(engine: Tantivy) -> dict[str, int]:
    page = await engine.search(Asked(parse("ext:txt folder", 0), frozenset({1}), sort=Sort.PATH, limit=10_000))
    assert page.total == len(page.hits)
    return {hit.document.key: hit.document.size for hit in page.hits}


WRITER = """
import asyncio, importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("told", sys.argv[1])
told = importlib.util.module_from_spec(spec)
spec.loader.exec_module(told)

async def main():
    engine = told.Tantivy(Path(sys.argv[2]))
    await engine.open()
    at = await engine.position()
    while True:
        await engine.write(told.history(at + 1, 200))
        at += 200
        print("committing", at, flush=True)
        await engine.commit(at)

asyncio.run(main())
"""


async def test_killed_in_mid_commit_it_opens_again_at_a_position_that_is_true(tmp_path: Path) -> None:
    chance = random.Random(3)  # noqa: S311 - to repeat a test, not to keep a secret
    last = 0
    for _ in range(5):
        with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs here
            [sys.executable, "-c", WRITER, __file__, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randint(2, 6)):
                asked = int(writer.stdout.readline().split()[1])
            for _ in range(chance.randrange(200_000)):  # a moment that no two rounds share
                pass
            writer.send_signal(signal.SIGKILL)
        engine = Tantivy(tmp_path)
        await engine.open()
        position = await engine.position()
        assert last <= asked - 200 <= position
        assert position % 200 == 0
        assert await content(engine) == after(position)
        last = position
        await engine.close()
    assert last > 0


@pytest.mark.parametrize("damage", ["meta is nonsense", "a segment is cut off", "a segment is missing", "meta is missing"])
async def test_what_cannot_be_opened_is_started_anew(tmp_path: Path, damage: str) -> None:
    engine = Tantivy(tmp_path)
    await engine.open()
    await engine.write(history(1, 100))
    await engine.commit(100)
    await engine.close()
    (home,) = tmp_path.glob("tantivy-*")  # noqa: ASYNC240 - nothing else runs here
    (segment, *_) = home.glob("*.term")
    match damage:
        case "meta is nonsense":
            (home / "meta.json").write_text("{nonsense")
        case "meta is missing":
            (home / "meta.json").unlink()
        case "a segment is cut off":
            segment.write_bytes(segment.read_bytes()[:20])
        case "a segment is missing":
            segment.unlink()
    again = Tantivy(tmp_path)
    await again.open()
    assert (await again.position(), await content(again)) == (0, {})
    await again.write(history(1, 100))
    await again.commit(100)
    assert await content(again) == after(100)
    await again.close()


async def test_an_index_of_another_format_makes_room(tmp_path: Path) -> None:
    (tmp_path / "tantivy-0").mkdir(parents=True)
    (tmp_path / "tantivy-0" / "meta.json").write_text("old")
    (tmp_path / "kept").write_text("not ours")
    engine = Tantivy(tmp_path)
    await engine.open()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "lock", f"tantivy-{FORMAT}"]  # noqa: ASYNC240 - nothing else runs here
    await engine.close()


async def test_what_was_committed_is_there_after_a_close_and_what_was_not_is_gone(tmp_path: Path) -> None:
    engine = Tantivy(tmp_path)
    await engine.open()
    await engine.open()  # again: nothing happens
    await engine.write(history(1, 50))
    await engine.commit(50)
    await engine.write(history(51, 50))
    await engine.close()
    await engine.close()
    with pytest.raises(Internal):
        await engine.write(history(1, 1))
    again = Tantivy(tmp_path)
    await again.open()
    assert (await again.position(), await content(again)) == (50, after(50))
    await again.write(history(51, 50))
    await again.commit(100)
    assert await content(again) == after(100)
    await again.close()


async def test_a_second_process_is_told_and_destroys_nothing(tmp_path: Path) -> None:
    engine = Tantivy(tmp_path)
    await engine.open()
    await engine.write(history(1, 50))
    await engine.commit(50)
    with pytest.raises(Conflict) as caught:
        await Tantivy(tmp_path).open()
    assert caught.value.todo
    assert await content(engine) == after(50)
    await engine.close()


async def test_a_position_never_goes_back(tmp_path: Path) -> None:
    engine = Tantivy(tmp_path)
    await engine.open()
    await engine.write(history(1, 10))
    await engine.commit(10)
    await engine.commit(3)
    assert await engine.position() == 10
    await engine.close()


async def test_a_commit_that_cannot_be_written_leaves_what_was_there_and_says_so(tmp_path: Path) -> None:
    engine = Tantivy(tmp_path)
    await engine.open()
    await engine.write(history(1, 50))
    await engine.commit(50)
    (home,) = tmp_path.glob("tantivy-*")  # noqa: ASYNC240 - nothing else runs here
    kept = tmp_path / "elsewhere"
    home.rename(kept)

    async def write_all() -> None:
        await engine.write(history(51, 50))  # the index may notice here already
        await engine.commit(100)

    with pytest.raises(Internal) as caught:
        await write_all()
    assert caught.value.todo
    assert (await engine.position(), await content(engine)) == (50, after(50))
    kept.rename(home)
    await engine.write(history(51, 50))
    await engine.commit(100)
    assert (await engine.position(), await content(engine)) == (100, after(100))
    await engine.close()


@pytest.mark.parametrize("gone", ["the index", "its directory too"])
async def test_an_index_that_is_deleted_while_it_is_open_begins_anew_once_it_has_failed_twice(
    tmp_path: Path, gone: str
) -> None:
    engine = Tantivy(tmp_path / "index")
    await engine.open()
    await engine.write(history(1, 50))
    await engine.commit(50)
    (home,) = (tmp_path / "index").glob("tantivy-*")
    shutil.rmtree(home if gone == "the index" else home.parent)

    async def write_all() -> None:
        await engine.write(history(51, 50))
        await engine.commit(100)

    for _ in range(2):
        with pytest.raises(Internal):
            await write_all()
    assert await engine.position() == 0
    await engine.write(history(1, 100))
    await engine.commit(100)
    assert (await engine.position(), await content(engine)) == (100, after(100))
    await engine.close()


async def test_a_damaged_index_says_so_instead_of_panicking(tmp_path: Path) -> None:
    engine = Tantivy(tmp_path)
    await engine.open()
    await engine.write(history(1, 500))
    await engine.commit(500)
    await engine.close()
    (home,) = tmp_path.glob("tantivy-*")  # noqa: ASYNC240 - nothing else runs here
    for store in home.glob("*.store"):
        data = bytearray(store.read_bytes())
        data[: len(data) // 2] = b"\x55" * (len(data) // 2)
        store.write_bytes(data)
    again = Tantivy(tmp_path)
    await again.open()
    try:
        if await again.position() == 500:  # else it was noticed when it was opened, and there is nothing to read
            with pytest.raises(Internal, match="cannot be read") as caught:
                await content(again)
            assert "reindex" in caught.value.todo
    finally:
        await again.close()


async def test_facets_of_very_many_different_values_are_answered_all_at_once(tmp_path: Path) -> None:
    """The engine counts no more than 65,000 values in one answer, and the tags are whatever people write."""
    engine = Tantivy(tmp_path)
    await engine.open()
    many = 14_000
    fields = [fitted(f"kind{number}", {}, tags={f"tag{number}": "x"}) for number in range(many)]
    await engine.write([Document(n, 1 + n, f"f.e{n}", f"f.e{n}", 1, 1, n + 1, one) for n, one in enumerate(fields)])
    await engine.commit(many)
    page = await engine.search(Asked(parse("", 0), frozenset(range(1, many + 1)), facets=frozenset(FacetKind)))
    assert page.total == many
    assert all(len(page.facets[kind]) == 20 for kind in FacetKind)
    await engine.close()
