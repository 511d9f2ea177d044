"""The process that reads files: ``python -m spoke_agent.extraction.worker MEMORY``, its standard input a socket to the agent.

One file at a time. It knows what the agent tells it, asks the agent for bytes, and ends with it.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
from typing import Final

import msgspec

from protocol.errors import BadMessage
from protocol.fields import MAX_FIELDS, Fields, fitted, pack, unpack
from spoke_agent.extraction.confinement import confine
from spoke_agent.extraction.messages import (
    LENGTH,
    MAX_RANGE,
    Ask,
    Begin,
    Bytes,
    Done,
    Job,
    Ready,
    ToAgent,
    ToWorker,
    for_worker,
    frame,
)
from spoke_agent.extractors import Extractor, Plugin, Source, Stopped, Unreadable, Wanted, ending, load

_GRACE: Final = 5
"""Seconds beyond the budget. The agent kills in time; this is for a worker that hangs while its agent is gone."""


class Line:
    """The agent, from here. Ends the process where the agent is gone. While no answer is awaited, an alarm is set."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.alarm = 0

    def say(self, message: ToAgent) -> None:
        """Send a message."""
        try:
            self._connection.sendall(frame(message))
        except OSError:
            os._exit(0)

    def hear(self) -> ToWorker:
        """Wait for a message."""
        signal.alarm(0)
        message = for_worker(self._exactly(int.from_bytes(self._exactly(LENGTH), "big")))
        signal.alarm(self.alarm)
        return message

    def fetch(self, offset: int, length: int) -> bytes:
        """Ask for a range of the file at hand. Raises Stopped."""
        parts = []
        while length > 0:
            self.say(Ask(offset, min(length, MAX_RANGE)))
            answer = self.hear()
            if not isinstance(answer, Bytes) or answer.data is None:
                raise Stopped
            parts.append(answer.data)
            if len(answer.data) < min(length, MAX_RANGE):
                break
            offset += len(answer.data)
            length -= len(answer.data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _exactly(self, count: int) -> bytes:
        buffer = bytearray(count)
        view = memoryview(buffer)
        while view:
            try:
                got = self._connection.recv_into(view)
            except OSError:
                got = 0
            if not got:
                os._exit(0)
            view = view[got:]
        return bytes(buffer)


def main() -> None:
    """Serve until the agent closes the line."""
    memory = int(sys.argv[1])
    # Extractors may print: the line moves away from where they would.
    line = Line(socket.socket(fileno=os.dup(0)))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    confine(memory)
    begin = line.hear()
    if not isinstance(begin, Begin):
        raise TypeError("The agent begins with Begin.")
    line.alarm = int(begin.seconds) + _GRACE
    extractors = [load(Plugin(name, target)) for name, target in begin.extractors]
    line.say(Ready())
    loaded: set[str] = set()
    while True:
        job = line.hear()
        if not isinstance(job, Job):
            raise TypeError("The agent sends a Job.")
        line.say(read(job, extractors, loaded, line))


def read(job: Job, extractors: list[Extractor], loaded: set[str], line: Line) -> Done:
    """Read one file. Whatever an extractor raises becomes a problem of the file. ``loaded`` are extractors used before."""
    what = "such a file"
    try:
        named = [one for one in extractors if ending(job.key) in one.endings]
        for extractor in named + [one for one in extractors if one not in named]:
            what = extractor.what
            if extractor.fits(job.key, job.head):
                _load(extractor, loaded, line)
                source = Source(job.key, job.size, job.head, line.fetch)
                return Done(_packed(extractor.extract(source, Wanted(job.wanted))))
    except Stopped:
        return Done(_problem("Reading it was stopped."))
    except Unreadable as error:
        return Done(_problem(str(error)))
    except MemoryError:
        return Done(_problem("Reading it takes more memory than it may."), worn=True)
    except BaseException as error:  # noqa: BLE001 - an extractor is somebody else's code; even SystemExit costs only this file
        # Not the error's own words: they may quote the file, a patient's name with it.
        return Done(_problem(f"It cannot be read as {what} ({type(error).__name__})."))
    misnamed = named and ending(job.key)
    return Done(_problem(f"It is named like {named[0].what} and does not begin like that.") if misnamed else None)


def _load(extractor: Extractor, loaded: set[str], line: Line) -> None:
    """Import what an extractor needs, and say so: seconds on a busy machine, which are not the file's fault."""
    if extractor.name not in loaded and extractor.needs:
        for module in extractor.needs:
            importlib.import_module(module)
        loaded.add(extractor.name)
        line.say(Ready())


def _packed(fields: object) -> bytes:
    """Return fields as bytes, or what is wrong with them."""
    if not isinstance(fields, Fields):
        return _problem("Its extractor gave something that is no fields.")
    try:
        body = pack(fields)
        if len(body) <= MAX_FIELDS:
            unpack(body)
            return body
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError, BadMessage):
        return _problem("Its extractor gave fields that cannot be.")
    return _problem("Its extractor found more than can be kept.")


def _problem(sentence: str) -> bytes:
    return pack(fitted("", {}, problem=sentence))


if __name__ == "__main__":
    main()
