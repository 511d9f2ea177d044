"""Messages to bytes and back, with every limit of the protocol.

Whatever a peer sends, decoding either gives a message inside all limits or raises BadMessage; nothing else comes out.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from protocol.errors import BadMessage, Problem
from protocol.messages import (
    MAX_FRAME,
    Access,
    Accesses,
    AgentMessage,
    Challenge,
    Events,
    Explain,
    Hello,
    HubMessage,
    PlaceWorkspace,
    Proof,
    Recheck,
    Refused,
    Row,
    Welcome,
)
from protocol.names import MAX_KEY_BYTES

FIRST_SKIPPABLE: Final = 128
"""Unknown tags from here on are skipped, below they end the connection."""
OVERHEAD: Final = 72
"""Bytes a frame adds to its payload: signature 64, sequence 8."""
CLOSE_CODE: Final = 4000
"""The WebSocket close code of either side, where the close reason says why: ``close_reason``."""
_MAX_REASON: Final = 123
"""Bytes of a WebSocket close reason (RFC 6455, 5.5)."""
_MAX_BYTES_PER_CHARACTER: Final = 4
# The bytes of msgpack's own specification that ``_tag`` reads.
_FIXARRAY, _ARRAY16, _ARRAY32, _UINT8, _UINT16 = 0x90, 0xDC, 0xDD, 0xCC, 0xCD


# What msgspec raises for bytes that are no message; text that is not UTF-8 is not a MsgspecError.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")


class Skipped(msgspec.Struct, frozen=True):
    """A message of a newer peer that may be ignored."""

    tag: int


_ENCODE = msgspec.msgpack.Encoder()
_HUB: msgspec.msgpack.Decoder[HubMessage | Welcome] = msgspec.msgpack.Decoder(HubMessage | Welcome)
_AGENT: msgspec.msgpack.Decoder[AgentMessage] = msgspec.msgpack.Decoder(AgentMessage)
_OPENING: msgspec.msgpack.Decoder[Hello | Proof] = msgspec.msgpack.Decoder(Hello | Proof)
_REPLY: msgspec.msgpack.Decoder[Challenge | Refused] = msgspec.msgpack.Decoder(Challenge | Refused)


def encode(message: msgspec.Struct) -> bytes:
    """Return a message's bytes; raise BadMessage if they would not fit one frame or hold text that is not Unicode."""
    try:
        payload = _ENCODE.encode(message)
    except UnicodeEncodeError as error:
        raise BadMessage("A message holds text that is not valid Unicode.") from error
    if len(payload) > MAX_FRAME - OVERHEAD:
        raise BadMessage(f"A message of {len(payload)} bytes does not fit one frame.")
    return payload


def decode_hub(payload: bytes) -> HubMessage | Welcome | Skipped:
    """Read what a hub sent in a frame."""
    return _decode(_HUB, payload)


def decode_agent(payload: bytes) -> AgentMessage | Skipped:
    """Read what an agent sent in a frame."""
    return _decode(_AGENT, payload)


def decode_opening(payload: bytes) -> Hello | Proof:
    """Read what an agent sends before the session is open."""
    return _decode_strictly(_OPENING, payload)


def decode_reply(payload: bytes) -> Challenge | Refused:
    """Read what a hub sends, outside of frames, before the session is open."""
    return _decode_strictly(_REPLY, payload)


def _decode(decoder: msgspec.msgpack.Decoder[T], payload: bytes) -> T | Skipped:
    tag = _tag(payload)
    try:
        message = decoder.decode(payload)
    except _UNREADABLE as error:
        if tag is not None and tag >= FIRST_SKIPPABLE:
            return Skipped(tag)
        raise BadMessage(f"A message cannot be read: {_brief(error)}.") from error
    _check_keys(message)
    return message


def _decode_strictly(decoder: msgspec.msgpack.Decoder[T], payload: bytes) -> T:
    if len(payload) > MAX_FRAME:
        raise BadMessage(f"A message of {len(payload)} bytes is over the limit.")
    try:
        return decoder.decode(payload)
    except _UNREADABLE as error:
        raise BadMessage(f"A handshake message cannot be read: {_brief(error)}.") from error


def _tag(payload: bytes) -> int | None:
    """Return the tag of a msgpack array whose first element is an unsigned integer of one byte or two; else None."""
    at = {_ARRAY16: 3, _ARRAY32: 5}.get(payload[0], 1 if payload[0] & 0xF0 == _FIXARRAY else 0) if payload else 0
    if not at or len(payload) <= at:
        return None
    first = payload[at]
    if first < FIRST_SKIPPABLE:
        return first
    if first == _UINT8 and len(payload) > at + 1:
        return payload[at + 1]
    if first == _UINT16 and len(payload) > at + 2:
        return int.from_bytes(payload[at + 1 : at + 3], "big")
    return None


def _check_keys(message: object) -> None:
    """Check what msgspec cannot: keys are counted in bytes, and NUL is never part of one."""
    if isinstance(message, Events):
        for row in message.rows:
            _check_key(row)
    elif isinstance(message, Accesses):
        for access in message.rows:
            _check_key(access)
    elif isinstance(message, Explain | PlaceWorkspace):
        text = message.key if isinstance(message, Explain) else message.prefix
        if _too_long(text) or "\0" in text:
            raise BadMessage("A message holds a key that S3 does not allow.")
    elif isinstance(message, Recheck) and any(_too_long(key) or "\0" in key for key in message.keys):
        raise BadMessage("A message holds a key that S3 does not allow.")


def _check_key(row: Row | Access) -> None:
    if _too_long(row.key) or "\0" in row.key:
        raise BadMessage("A message holds a key that S3 does not allow.")


def _too_long(key: str) -> bool:
    return len(key) * _MAX_BYTES_PER_CHARACTER > MAX_KEY_BYTES and len(key.encode()) > MAX_KEY_BYTES


def _brief(error: Exception) -> str:
    """Return the reason without what the peer put into it."""
    match error:
        case RecursionError():
            return "it is nested too deep"
        case UnicodeDecodeError():
            return "it holds text that is not UTF-8"
        case _:
            reason = str(error).split(" - at ")[0]
            return "it holds a value that is not one of those allowed" if reason.startswith("Invalid") else reason[:100]


def close_reason(problem: Problem) -> str:
    """Return the reason with which to close a WebSocket: the problem's code and as much of its sentence as fits."""
    reason = f"{problem.code}: {problem.message}".encode("utf-8", "replace")
    return reason[:_MAX_REASON].decode("utf-8", "ignore")


def closed_because(code: int, reason: str) -> Problem | None:
    """Return the problem a peer closed a WebSocket with; None where it gave none. Not signed: advice, like Refused."""
    word, colon, message = reason.partition(": ")
    return Problem(word, message) if code == CLOSE_CODE and colon else None
