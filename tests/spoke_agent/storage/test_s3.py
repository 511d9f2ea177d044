"""Reading what a server lists, true or not."""

from __future__ import annotations

import contextlib

import pytest

from protocol.errors import StorageRefused
from spoke_agent.storage.connection import Reply
from spoke_agent.storage.node import Entry
from spoke_agent.storage.s3 import EMPTY_PAGES, S3, parse, read_page
from spoke_agent.storage.sigv4 import Key

PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><IsTruncated>{truncated}</IsTruncated>
{inside}<EncodingType>url</EncodingType></ListBucketResult>"""
OBJECT = "<Contents><Key>{key}</Key><LastModified>{time}</LastModified><ETag>&#34;abc&#34;</ETag><Size>{size}</Size></Contents>"


def page(inside: str, truncated: str = "false") -> bytes:
    return PAGE.format(inside=inside, truncated=truncated).encode()


def one(key: str = "k", time: str = "2026-11-24T10:15:00.123Z", size: str = "5") -> str:
    return OBJECT.format(key=key, time=time, size=size)


def test_times_are_read_to_the_nanosecond_the_server_gives() -> None:
    entries = read_page(page(one() + one("l", "2026-11-24T10:15:00Z") + one("m", "2026-11-24T10:15:00.000000001Z"))).entries
    second = 1795515300 * 1_000_000_000
    assert [entry.mtime - second for entry in entries] == [123_000_000, 0, 1]
    assert entries[0] == Entry("k", 5, second + 123_000_000, "abc")


def test_keys_come_out_as_they_were_put_in() -> None:
    (entry,) = read_page(page(one("x+y%2Bz%25%26%C3%A9%0A%3Cscript%3E"))).entries
    assert entry.key == "x y+z%&é\n<script>"


def test_folders_and_what_continues_a_listing_are_found() -> None:
    folders = "<CommonPrefixes><Prefix>a%20b/</Prefix></CommonPrefixes><NextContinuationToken>t&amp;k</NextContinuationToken>"
    found = read_page(page(folders, "true"))
    assert (found.folders, found.more) == (["a b/"], "t&k")


@pytest.mark.parametrize(
    "inside",
    [
        one(size="-1"),
        one(size="many"),
        one(size=""),
        one(key=""),
        one(key="%ff"),
        one(time=""),
        one(time="yesterday"),
        one(time="2026-11-24T10:15:00.123"),
        one(time="2026-13-24T10:15:00Z"),
        one(time="2026-11-24T10:15:00.12x4Z"),
        one(time="2026-11-24T10:15:00+01Z"),
    ],
)
def test_an_object_that_cannot_be_is_refused_and_nothing_of_its_page_counts(inside: str) -> None:
    with pytest.raises(StorageRefused, match="without a proper key, size or time"):
        read_page(page(one() + inside))


def test_a_listing_that_goes_on_without_saying_how_is_refused() -> None:
    with pytest.raises(StorageRefused, match="not how"):
        read_page(page(one(), "true"))


@pytest.mark.parametrize("body", [b"", b"<a>", b"nonsense", b"<a>&undefined;</a>"])
def test_what_is_not_xml_is_refused(body: bytes) -> None:
    with pytest.raises(StorageRefused, match="not XML"):
        parse(body)


def test_an_entity_reads_no_file_and_does_not_grow() -> None:
    outside = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a><Key>&x;</Key></a>'
    assert "root" not in (parse(outside).findtext("Key") or "")
    bomb = (
        b'<!DOCTYPE a [<!ENTITY a "'
        + b"a" * 1000
        + b'">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 100) for n in range(5))
        + b"]><a>&f;</a>"
    )
    with contextlib.suppress(StorageRefused):
        assert len(parse(bomb).text or "") < 10_000


class Endless:
    """A server that always has more to list, with an object in every so many pages."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.asked = 0

    async def ask(self, *_: object, **__: object) -> Reply:
        self.asked += 1
        inside = one(f"k{self.asked:06}") if self.every and self.asked % self.every == 0 else ""
        return Reply(200, {}, page(f"{inside}<NextContinuationToken>t{self.asked}</NextContinuationToken>", "true"))


async def test_a_listing_that_goes_on_for_ever_without_an_object_is_refused() -> None:
    server = Endless(0)
    with pytest.raises(StorageRefused, match="for ever"):
        [_ async for _ in S3(server, Key("a", "b")).pages("bucket")]  # type: ignore[arg-type]  # a connection asks no more
    assert server.asked <= EMPTY_PAGES + 2


async def test_pages_without_an_object_between_others_are_left_out() -> None:
    server = Endless(EMPTY_PAGES - 1)
    pages = S3(server, Key("a", "b")).pages("bucket")  # type: ignore[arg-type]  # as above
    found = [await anext(pages), await anext(pages)]
    await pages.aclose()
    assert [[entry.key for entry in entries] for entries in found] == [["k000999"], ["k001998"]]
