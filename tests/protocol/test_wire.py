"""Bytes to messages and back: whatever is inside all limits gets through unchanged, whatever is outside of one is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import BadMessage
from protocol.messages import (
    MAX_FRAME,
    MAX_ROWS,
    Access,
    Accesses,
    Change,
    Done,
    Epochs,
    EpochState,
    Events,
    Explain,
    Health,
    Hello,
    Nak,
    PlaceWorkspace,
    Progress,
    Row,
    Scan,
    ScanState,
)
from protocol.wire import (
    FIRST_SKIPPABLE,
    OVERHEAD,
    Skipped,
    decode_agent,
    decode_hub,
    decode_opening,
    decode_reply,
    encode,
)
from tests.protocol.parties import CURSOR, FROM_AGENT, FROM_HUB, OPENING, REPLY
from tests.protocol.record_vectors import BOB, VERSION_1
from tests.protocol.shapes import misses, shape, values

Decode = Callable[[bytes], Any]
SIDES: list[tuple[tuple[type[msgspec.Struct], ...], Decode]] = [
    (FROM_HUB, decode_hub),
    (FROM_AGENT, decode_agent),
    (OPENING, decode_opening),
    (REPLY, decode_reply),
]
KINDS = [(kind, decode) for kinds, decode in SIDES for kind in kinds]
pack = msgspec.msgpack.encode


@pytest.mark.parametrize(("kind", "decode"), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
def test_every_message_comes_back_as_it_was_sent(kind: type[msgspec.Struct], decode: Decode) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(values(kind))
    def goes_and_comes(message: msgspec.Struct) -> None:
        assert decode(encode(message)) == message

    goes_and_comes()


@pytest.mark.parametrize("message", VERSION_1, ids=[f"{n}-{type(m).__name__}" for n, m in enumerate(VERSION_1)])
def test_every_limit_of_every_message_is_kept(message: msgspec.Struct) -> None:
    (decode,) = {decode for kinds, decode in SIDES if type(message) in kinds and decode is not decode_agent} or {decode_agent}
    tried = 0
    for wrong, raw in misses(type(message), shape(message)):
        tried += 1
        with pytest.raises(BadMessage):
            pytest.fail(f"{wrong} was taken: {decode(pack(raw))}")
    assert tried >= 4


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (decode_agent, b""),
        (decode_agent, b"\xc1"),
        (decode_agent, b"hello"),
        (decode_agent, pack("text")),
        (decode_agent, pack({"a": 1})),
        (decode_agent, pack([])),
        (decode_agent, pack([-1])),
        (decode_agent, pack([1.0, 1])),
        (decode_agent, pack([math.nan])),
        (decode_agent, pack([2**40, 1])),
        (decode_agent, pack([60, 1]) + b"\x00"),
        (decode_agent, pack([60, 1])[:-1]),
        (decode_agent, b"\xdc\x00"),
        (decode_agent, b"\xdd\xff\xff\xff\xff"),
        (decode_agent, pack([60, -1])),
        (decode_agent, pack([60, 2**64 - 1])),
        (decode_agent, pack([60, math.nan])),
        (decode_agent, b"\x92\x3c" + b"\x91" * 200_000),
        (decode_agent, b"\x91" * 200_000),
        (decode_agent, b"\x92\x3c" + b"\x81\xa1a" * 100_000),
        (decode_agent, encode(Health(0, 0, 0, paused=False, warnings=("text",))).replace(b"text", b"te\xff\xfe")),
        (decode_opening, encode(VERSION_1[4]).replace(b"minio", b"min\xc3(")),
        (decode_hub, encode(Done(1))),
        (decode_agent, encode(Scan(1, 1, 1))),
        (decode_hub, encode(Hello((1,), bytes(32), bytes(32)))),
        (decode_opening, encode(Done(1))),
        (decode_opening, pack([128])),
        (decode_opening, b"\x91" * 100_000),
        (decode_opening, b"\0" * (MAX_FRAME + 1)),
        (decode_reply, b""),
        (decode_reply, pack([200, 1])),
    ],
)
def test_what_is_no_message_of_that_side_is_refused_in_a_short_sentence(decode: Decode, payload: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        decode(payload)
    assert len(caught.value.message) < 200
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize("tag", [FIRST_SKIPPABLE, 200, 255, 256, 65_535])
@pytest.mark.parametrize("decode", [decode_agent, decode_hub])
def test_an_unknown_tag_from_128_on_is_skipped_whatever_it_carries(decode: Decode, tag: int) -> None:
    for rest in ([], [1, "x", None, {"a": [1.5]}], [0] * 20, [0] * 70_000, [[[[[[]]]]]]):
        assert decode(pack([tag, *rest])) == Skipped(tag)
    assert decode(b"\x92" + pack(tag) + b"\x91" * 100_000) == Skipped(tag)


@pytest.mark.parametrize("tag", [0, 20, 46, 48, 99, 127])
@pytest.mark.parametrize("decode", [decode_agent, decode_hub])
def test_an_unknown_tag_below_128_is_refused(decode: Decode, tag: int) -> None:
    with pytest.raises(BadMessage):
        decode(pack([tag, 1]))


@pytest.mark.parametrize(
    "payload", [b"\xdc\x00\x05\xcc", b"\x92\xcd\x01", b"\xdd\x00\x00\x00\x02\xcd", b"\x90", b"\xdc\x00\x00", b"\x91\xcc"]
)
def test_a_tag_that_is_cut_off_is_not_guessed(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_agent(payload)


LONGEST = ["k" * 1024, "é" * 512, "日" * 341, "😀" * 256]
TOO_LONG = ["é" * 513, "日" * 342, "😀" * 257, "k" * 1000 + "é" * 13, "a\0b", "\0"]


def with_key(key: str) -> list[tuple[Decode, msgspec.Struct]]:
    return [
        (decode_agent, Events(1, 0, (Row(Change.PUT, 1, "fine"), Row(Change.DELETE, 1, key)), bytes(32))),
        (decode_agent, Accesses((Access(1, "fine", 0, "GetObject", 0, 0, 1, 0), Access(1, key, 0, "GetObject", 0, 0, 1, 0)))),
        (decode_hub, Explain(1, 1, BOB, 1, key)),
        (decode_hub, PlaceWorkspace(1, 1, 1, key)),
    ]


@pytest.mark.parametrize("key", LONGEST)
def test_a_key_may_have_1024_bytes_in_any_script(key: str) -> None:
    for decode, message in with_key(key):
        assert decode(encode(message)) == message


@pytest.mark.parametrize("key", TOO_LONG)
def test_a_key_of_more_bytes_or_with_nul_is_refused(key: str) -> None:
    for decode, message in with_key(key):
        with pytest.raises(BadMessage):
            decode(pack(message))


@pytest.mark.parametrize(
    ("decode", "raw"),
    [
        (decode_agent, [45, 1, 0, [[1, 1, "k", -1]], bytes(32)]),
        (decode_agent, [45, 1, 0, [[1, 1, "k", 0, 7_258_118_400_000_000_001]], bytes(32)]),
        (decode_agent, [45, 1, 0, [[1, 1, "k", 0, -1]], bytes(32)]),
        (decode_agent, [45, 1, 0, [[4, 1, "k"]], bytes(32)]),
        (decode_agent, [45, 1, 0, [[1, 2**53, "k"]], bytes(32)]),
        (decode_agent, [45, 1, 0, [[1, 1, ""]], bytes(32)]),
        (decode_agent, [45, 1, 0, [[1, 1, "k", math.nan]], bytes(32)]),
        (decode_agent, [45, 1, 0, [[1, 1, "k"]] * (MAX_ROWS + 1), bytes(32)]),
        (decode_agent, [50, 253_402_300_799_000_000, 0, 0, False]),  # the year 9999
        (decode_hub, [18, 1, 253_402_300_799, bytes(64)]),
    ],
)
def test_impossible_sizes_times_and_ids_are_refused(decode: Decode, raw: list[Any]) -> None:
    with pytest.raises(BadMessage):
        decode(pack(raw))


def test_a_message_that_does_not_fit_a_frame_is_refused_before_it_is_sent() -> None:
    row = Row(Change.PUT, 1, "k" * 1000)
    with pytest.raises(BadMessage, match="does not fit"):
        encode(Events(1, 0, (row,) * 1100, bytes(32)))
    fits = encode(Events(1, 0, (row,) * 1000, bytes(32)))
    assert len(fits) <= MAX_FRAME - OVERHEAD


def test_text_that_is_not_unicode_is_refused_before_it_is_sent() -> None:
    with pytest.raises(BadMessage, match="Unicode"):
        encode(Nak(CURSOR, "\ud800"))


def test_the_reason_never_repeats_what_the_peer_put_in() -> None:
    evil = "<script>\x1b[31m"
    for raw in ([50, evil, 0, 0, False], [47, 1, evil, 0, 0, 0, 0], [evil], [11, 1, 1, [evil, 1, evil], 1, bytes(32), 1]):
        with pytest.raises(BadMessage) as caught:
            (decode_hub if raw[0] == 11 else decode_agent)(pack(raw))
        assert "script" not in caught.value.message


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_a_message_or_bad(payload: bytes) -> None:
    for decode in (decode_agent, decode_hub, decode_opening, decode_reply):
        try:
            message = decode(payload)
        except BadMessage:
            continue
        assert isinstance(message, Skipped) or decode(encode(message)) == message


def test_the_largest_lists_that_are_allowed_get_through() -> None:
    epochs = Epochs((EpochState(BOB, 4, bytes(32)),) * 5000)
    assert decode_agent(encode(epochs)) == epochs
    progress = Progress(1, ScanState.DONE, 2**63 - 1, 2**63 - 1, 7_258_118_400_000_000, 7_258_118_400_000_000)
    assert decode_agent(encode(progress)) == progress
    health = Health(0, 0, 0, paused=False, warnings=("w" * 500,) * 32)
    assert decode_agent(encode(health)) == health
