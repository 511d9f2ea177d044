"""What agent and worker say to each other: frames of four bytes length, most significant first, and msgpack.

The agent begins with Begin, which the worker answers with Ready. Then for each file: Job, Ready once for each extractor, any
number of Ask and Bytes, and Done.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from protocol.fields import MAX_FIELDS

HEAD: Final = 64 * 1024
"""Bytes of a file sent along with the job: enough for most headers, so that most files need one round trip."""
MAX_RANGE: Final = 1024 * 1024
"""Bytes of one Ask."""
LENGTH: Final = 4
"""Bytes of a frame's length."""
MAX_ANSWER: Final = MAX_FIELDS + 1024
"""Bytes of a frame that a worker may send."""

_Offset = Annotated[int, msgspec.Meta(ge=0)]


class Begin(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What the worker has to load, by name and place, and how long it may live without a word from the agent."""

    extractors: tuple[tuple[str, str], ...]
    seconds: float


class Job(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Read this file. ``head`` is its first HEAD bytes."""

    key: str
    size: int
    wanted: str
    head: bytes


class Bytes(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The range that was asked for. None: there is nothing more to be had; give up this file."""

    data: bytes | None


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Everything is loaded; within a job: the library that this kind of file needs was loaded, and the work begins now."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Give me a range of the file."""

    offset: _Offset
    length: Annotated[int, msgspec.Meta(ge=1, le=MAX_RANGE)]


class Done(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """That was this file. ``fields`` as ``protocol.fields.pack`` made them; None where no extractor fits."""

    fields: bytes | None
    worn: bool = False
    """The worker had too little memory and better ends."""


ToWorker: TypeAlias = Begin | Job | Bytes
ToAgent: TypeAlias = Ready | Ask | Done

_ENCODE = msgspec.msgpack.Encoder()
_TO_WORKER: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_TO_AGENT: msgspec.msgpack.Decoder[ToAgent] = msgspec.msgpack.Decoder(ToAgent)


def frame(message: ToWorker | ToAgent) -> bytes:
    """Return a message with its length before it."""
    buffer = bytearray(LENGTH)
    _ENCODE.encode_into(message, buffer, LENGTH)
    buffer[:LENGTH] = (len(buffer) - LENGTH).to_bytes(LENGTH, "big")
    return bytes(buffer)


def for_worker(body: bytes) -> ToWorker:
    """Read what the agent said. Raises msgspec.MsgspecError."""
    return _TO_WORKER.decode(body)


def for_agent(body: bytes) -> ToAgent:
    """Read what a worker said, which may be anything. Raises msgspec.MsgspecError, UnicodeDecodeError, RecursionError."""
    return _TO_AGENT.decode(body)
