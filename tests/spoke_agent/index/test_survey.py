"""Counting a root before an import, and comparing it with the snapshot afterwards."""

from __future__ import annotations

import asyncio

import pytest

from protocol.digest import combine, object_number
from protocol.errors import RootMissing, StorageRefused
from protocol.messages import RootConfig
from spoke_agent.index import survey as surveys
from spoke_agent.index import verify as verifying
from spoke_agent.index.survey import OTHER, Counting, Survey, oddities, survey
from spoke_agent.index.verify import Verified, verify
from spoke_agent.storage.node import Entry
from tests.spoke_agent.index.conftest import Bench, MemoryNode, config_of


async def surveyed(bench: Bench, **changes: object) -> Survey:
    return await survey(
        bench.node,  # type: ignore[arg-type]  # the part that the index uses
        config_of(1, **changes),
        clock=lambda: next(bench.time),
        pause=lambda _: asyncio.sleep(0),
    )


async def verified(bench: Bench) -> Verified:
    return await verify(
        bench.node,  # type: ignore[arg-type]  # the part that the index uses
        bench.ledger,
        config_of(1),
        clock=lambda: next(bench.time),
        pause=lambda _: asyncio.sleep(0),
    )


# ---------------------------------------------------------------------------------------------------- surveys


async def test_a_survey_counts_what_is_there_by_extension_and_writes_nothing_down(bench: Bench, node: MemoryNode) -> None:
    for number in range(30):
        node.put(1, f"a/{number}.nii.gz", "x" * 100)
        node.put(1, f"a/{number}.TXT", "x" * 3)
    node.put(1, "README", "x" * 7)
    found = await surveyed(bench)
    assert (found.objects, found.bytes) == (61, 3097)
    assert [(one.extension, one.objects, one.bytes) for one in found.extensions] == [
        ("nii.gz", 30, 3000),
        ("txt", 30, 90),
        ("", 1, 7),
    ]
    assert found.odd == ()
    assert bench.ledger.pending == 0


async def test_an_estimate_knows_the_pace_of_its_root(bench: Bench, node: MemoryNode) -> None:
    for number in range(50):
        node.put(1, f"{number}")
    assert (await surveyed(bench)).estimate_s < 1
    assert (await surveyed(bench, pace=10)).estimate_s >= 5.0


def test_the_tail_of_many_extensions_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveys, "MAX_EXTENSIONS", 50)
    counting = Counting()
    counting.count([Entry(f"{number}.e{number}", number, 1, "e") for number in range(100)])
    found = counting.result(1.0)
    assert len(found.extensions) == surveys.TOP + 1
    assert found.extensions[-1].extension == OTHER
    assert sum(one.objects for one in found.extensions) == found.objects == 100
    assert sum(one.bytes for one in found.extensions) == found.bytes


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("a\nb", "control"),
        ("a\u202eb", "bidi"),
        ("\x1b[31m", "control"),
        ("e\u0301.txt", "NFC"),
        ("a//b", "empty part"),
        ("../b", ".."),
        ("a /b", "space"),
        ("a./b", "dot at the last"),
        ("a*", "policies"),
        ("${x}", "policies"),
        ("a\\b", "policies"),
        ("d/=cmd()", "spreadsheets"),
        ("x" * 1025, "S3 does not allow"),
        ("a\0b", "S3 does not allow"),
    ],
)
def test_odd_names_are_named_with_what_is_odd(key: str, word: str) -> None:
    assert any(word in what for what in oddities(Entry(key, 1, 1, "e")))


@pytest.mark.parametrize(
    "key", ["a", "Ärger/naïve café.txt", "a b/c-d_e+f.nii.gz", ".hidden", "folder/", "日本/語.txt", "a,b;c=d"]
)
def test_ordinary_names_are_not_odd(key: str) -> None:
    assert oddities(Entry(key, 1, 1, "e")) == []


async def test_samples_of_odd_names_are_few_and_safe_to_print(bench: Bench, node: MemoryNode) -> None:
    for number in range(50):
        node.put(1, f"\x1b[31m{number}")
    (odd,) = (await surveyed(bench)).odd
    assert odd.objects == 50
    assert len(odd.samples) == surveys.SAMPLES
    assert all(sample.isprintable() for sample in odd.samples)


async def test_a_survey_of_nothing_or_of_lies_says_so(bench: Bench, node: MemoryNode) -> None:
    node.put(1, "a")
    node.put(1, "b")

    async def backwards(*_: object, **__: object) -> object:
        yield [node.objects[1]["b"], node.objects[1]["a"]]

    node.scan = backwards  # type: ignore[method-assign,assignment]  # it lies
    with pytest.raises(StorageRefused, match="out of order"):
        await surveyed(bench)
    node.identities.clear()
    with pytest.raises(RootMissing):
        await surveyed(bench)


# ---------------------------------------------------------------------------------------------------- verifying


async def test_after_a_scan_storage_and_snapshot_are_equal(bench: Bench, node: MemoryNode) -> None:
    for number in range(200):
        node.put(1, f"{number}", "x" * (number % 5))
    await bench.scanner.scan_root(1)
    found = await verified(bench)
    assert found.equal
    assert found.storage == found.kept == found.recounted
    assert found.storage.objects == 200
    number = combine(0, added=(object_number(e.key, e.size, e.mtime, e.etag) for e in node.objects[1].values()))
    assert found.storage.digest == number


@pytest.mark.parametrize("at_once", [1, 3, 20_000])
async def test_every_difference_is_counted_and_the_first_ones_named(
    bench: Bench, node: MemoryNode, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "KNOWN_AT_ONCE", at_once)
    for number in range(200):
        node.put(1, f"k{number:03}")
    await bench.scanner.scan_root(1)
    for number in range(40):
        node.delete(1, f"k{number:03}")
    for number in range(50, 53):
        node.put(1, f"k{number:03}", "other")
    node.put(1, "zz")
    node.put(1, "\x1b")
    node.delete(1, "k199")
    found = await verified(bench)
    assert not found.equal
    assert (found.gone.objects, found.other.objects, found.unknown.objects) == (41, 3, 2)
    assert len(found.gone.samples) == verifying.SAMPLES
    assert found.other.samples == ("“k050”", "“k051”", "“k052”")
    assert set(found.unknown.samples) == {"“zz”", "“\\x1b”"}
    assert found.storage.objects == 200 - 41 + 2
    assert found.kept.objects == 200


async def test_what_changes_while_it_is_walked_is_no_difference(bench: Bench, node: MemoryNode) -> None:
    for number in range(100):
        node.put(1, f"k{number:03}")
    await bench.scanner.scan_root(1)
    changes = iter(range(100))
    seldom = node.look

    async def look(root: RootConfig, key: str) -> Entry | None:
        # By the time of the second look the change feed has seen it too.
        await bench.scanner.scan_root(root.root)
        return await seldom(root, key)

    node.between = lambda: node.put(1, f"k{99 - next(changes):03}", "changed")
    node.look = look  # type: ignore[method-assign]  # the feed is quicker
    found = await verified(bench)
    assert found.equal
    assert next(changes) > 5


async def test_a_snapshot_that_disagrees_with_itself_is_found_out(bench: Bench, node: MemoryNode) -> None:
    node.put(1, "a")
    await bench.scanner.scan_root(1)
    await bench.database.run(lambda c: c.execute("UPDATE root SET digest = digest + 1"))
    found = await verified(bench)
    assert not found.equal
    assert found.kept != found.recounted
    assert found.recounted == found.storage


async def test_second_looks_are_bounded(bench: Bench, node: MemoryNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "SECOND_LOOKS", 5)
    for number in range(50):
        node.put(1, f"{number}")
    node.looked.clear()
    found = await verified(bench)
    assert found.unknown.objects == 50
    assert len(set(node.looked)) == 5
