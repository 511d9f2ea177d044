"""What extractors stand on: names and endings, ranges of a file, and the list of those there are."""

from __future__ import annotations

import io
import random
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from spoke_agent.extractors import GROUP, OURS, Source, Stopped, ending, load, plugins
from spoke_agent.extractors.source import AHEAD, BLOCK, KEPT

ROOT = Path(__file__).parents[3]
BODY = random.Random(1).randbytes(BLOCK * 40 + 123)  # noqa: S311 - the same bytes each time


def source(body: bytes = BODY) -> tuple[Source, list[tuple[int, int]]]:
    """Return a file and the list of the ranges fetched of it."""
    asked: list[tuple[int, int]] = []

    def fetch(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return body[offset : offset + length]

    return Source("a/b", len(body), body[:BLOCK], fetch), asked


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("a/B.JPG", ".jpg"),
        ("x.nii.gz", ".nii.gz"),
        ("x.gz", ".gz"),
        ("a.b/README", ""),
        ("IM0001", ""),
        ("1.2.840.113619.2.5", ""),
        (".bashrc", ""),
        ("name.", ""),
        ("", ""),
        ("a/.gz", ""),
        ("report.final version of it", ""),
        ("a/..jpg", ".jpg"),
    ],
)
def test_the_ending_of_a_key_is_what_decides_whether_it_is_opened(key: str, found: str) -> None:
    assert ending(key) == found


def test_our_extractors_are_those_that_the_package_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert declared == dict(OURS)


def test_each_extractor_says_what_it_is_without_importing_its_library() -> None:
    names = [load(plugin).name for plugin in plugins() if plugin.name in OURS]
    assert names == list(OURS)


@settings(deadline=None)
@given(
    some.lists(
        some.tuples(some.integers(0, len(BODY) + 10), some.one_of(some.none(), some.integers(-1, 3 * BLOCK))), max_size=20
    )
)
def test_reading_here_and_there_gives_what_the_file_holds(places: list[tuple[int, int | None]]) -> None:
    file, _ = source()
    plain = io.BytesIO(BODY)
    for offset, length in places:
        file.seek(offset)
        plain.seek(offset)
        assert file.read(length) == plain.read(length)
        assert offset > len(BODY) or file.tell() == plain.tell()


def test_the_first_bytes_are_not_fetched_again() -> None:
    file, asked = source()
    assert file.read(BLOCK) == BODY[:BLOCK]
    assert asked == []
    file, asked = source(BODY[:100])
    assert file.read() == BODY[:100]
    assert asked == []


def test_small_reads_near_one_another_are_one_fetch_and_reading_in_order_fetches_ahead() -> None:
    file, asked = source()
    for _ in range(100):
        file.seek(5 * BLOCK)
        file.read(30)
    assert asked == [(5 * BLOCK, BLOCK)]
    file.read(BLOCK)
    assert asked[1:] == [(6 * BLOCK, AHEAD * BLOCK)]


def test_what_is_kept_of_a_large_file_is_bounded() -> None:
    file = Source("a", 10**12, bytes(BLOCK), lambda _, length: bytes(length))
    for number in range(1, 1000):
        file.seek(number * 10**9)
        file.read(10)
    assert len(file._blocks) <= KEPT


def test_a_file_that_became_shorter_ends_early_and_one_that_is_stopped_stops() -> None:
    file = Source("a", len(BODY), BODY[:BLOCK], lambda offset, length: BODY[: 2 * BLOCK][offset : offset + length])
    assert file.read() == BODY[: 2 * BLOCK]

    def stop(_offset: int, _length: int) -> bytes:
        raise Stopped

    file = Source("a", len(BODY), BODY[:BLOCK], stop)
    with pytest.raises(Stopped):
        io.BufferedReader(file).read()


def test_a_buffer_is_filled_and_places_before_the_beginning_are_refused() -> None:
    file, _ = source()
    buffer = bytearray(10)
    file.seek(-4, io.SEEK_END)
    assert file.readinto(buffer) == 4
    assert buffer[:4] == BODY[-4:]
    with pytest.raises(OSError, match="before the beginning"):
        file.seek(-1)
