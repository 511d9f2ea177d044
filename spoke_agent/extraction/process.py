"""One worker process, from the agent's side: started, given a file at a time, killed where it does not keep to its budget."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from protocol.errors import BadMessage, Internal
from protocol.fields import MAX_VALUE, Fields, unpack
from spoke_agent.extraction.budget import MIB, Budget
from spoke_agent.extraction.catalogue import Known
from spoke_agent.extraction.confinement import environment
from spoke_agent.extraction.messages import (
    LENGTH,
    MAX_ANSWER,
    Ask,
    Begin,
    Bytes,
    Done,
    Job,
    Ready,
    ToAgent,
    ToWorker,
    for_agent,
    frame,
)

Read: TypeAlias = Callable[[int, int], Awaitable[bytes]]
"""``read(offset, length)``: a range of one file. What it raises goes through to whoever wanted the fields."""

_PROGRAM: Final = "spoke_agent.extraction.worker"
_START_S: Final = 30
_GIVE_UP_S: Final = 2
"""How long a worker may take to give up a file it is told to give up."""
_BUFFER: Final = 256 * 1024
"""Bytes that lie in the line at once: a job with its first bytes goes in one piece."""


class Failed(Exception):
    """The worker has to be killed. ``str`` is the sentence about the file; ``crashed`` says that it ended by itself."""

    def __init__(self, sentence: str, *, crashed: bool = False) -> None:
        super().__init__(sentence)
        self.crashed = crashed


class Process:
    """A worker. Made by ``start``; ``kill`` it where it is no longer ``usable``.

    ``files`` counts those it was given. Not ``usable`` is one that is in the middle of a file, or had too little memory.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loads: int
    ) -> None:
        self._process = process
        self._loads = loads
        """How often it may still say that it loaded a library, after which its time begins anew."""
        self._reader = reader
        self._writer = writer
        self._killed = False
        self.files = 0
        self.usable = True

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @classmethod
    async def start(cls, extractors: Sequence[Known], budget: Budget) -> Process:
        """Start one and wait until it is ready. Raises Internal where none starts: no file is to blame for that."""
        ours, its = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours, limit=_BUFFER)
        with its:
            try:
                made = cls(_spawn(its, budget.memory), reader, writer, len(extractors))
            except OSError as error:
                writer.close()
                raise Internal(_NO_START) from error
        try:
            async with asyncio.timeout(_START_S):
                await made._say(Begin(tuple((one.name, one.target) for one in extractors), budget.seconds))
                ready = isinstance(await made._hear(), Ready)
        except (Failed, TimeoutError):
            ready = False
        except BaseException:
            await made.kill()
            raise
        if not ready:
            await made.kill()
            raise Internal(
                "The process that reads files does not start.",
                todo="Try `python -m spoke_agent.extraction.worker 0` beside it.",
            )
        return made

    async def run(self, job: Job, read: Read, budget: Budget) -> Fields | None:
        """Have one file read. Raises Failed, and whatever ``read`` raises."""
        self.files += 1
        self.usable = False
        seconds, spent, reads, over = budget.seconds, len(job.head), 0, ""
        loop = asyncio.get_running_loop()
        message: ToWorker | None = job
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout(max(0.0, seconds)):
                    if message is not None:
                        await self._say(message)
                    answer = await self._hear()
            except TimeoutError as error:
                raise Failed(over or f"Reading it takes longer than {budget.seconds:g} seconds.") from error
            seconds -= loop.time() - began
            if isinstance(answer, Ready) and self._loads > 0:
                self._loads -= 1
                seconds, message = budget.seconds, None
                continue
            if isinstance(answer, Done):
                fields = _fields(answer, over)
                self.usable = not answer.worn
                return fields
            if not isinstance(answer, Ask) or answer.offset + answer.length > job.size:
                raise Failed(_LIED)
            spent += answer.length
            reads += 1
            if spent > budget.bytes or reads > budget.reads:
                if over:
                    raise Failed(over)  # it was told to stop
                over = _over(budget, spent)
                seconds = min(seconds, _GIVE_UP_S)
                message = Bytes(None)
                continue
            try:
                data = await read(answer.offset, answer.length)
            except Exception:
                await self._give_up()
                raise
            message = Bytes(data[: answer.length])

    async def kill(self) -> None:
        """End it and what it may have started, and wait for that. Once; again does nothing."""
        self.usable = False
        if self._killed:
            return
        self._killed = True
        # Its own group, whose number is its own until it is waited for.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._writer.close()
        await asyncio.to_thread(self._process.wait)

    async def _give_up(self) -> None:
        """Tell the worker that there is no more of this file; one that does not listen is of no use any more."""
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._say(Bytes(None))
                self.usable = isinstance(await self._hear(), Done)
        except (Failed, TimeoutError):
            return

    async def _say(self, message: ToWorker) -> None:
        self._writer.write(frame(message))
        try:
            await self._writer.drain()
        except OSError as error:
            raise Failed(_ENDED, crashed=True) from error

    async def _hear(self) -> ToAgent:
        try:
            length = int.from_bytes(await self._reader.readexactly(LENGTH), "big")
            if length > MAX_ANSWER:
                raise Failed(_LIED)
            return for_agent(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Failed(_ENDED, crashed=True) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Failed(_LIED) from error


def _spawn(line: socket.socket, memory: int) -> subprocess.Popen[bytes]:
    """Start a worker, with no open file but its line to here. Takes milliseconds."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", _PROGRAM, str(memory)],
        env=environment(),
        stdin=line.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


_NO_START: Final = "The process that reads files does not start."
_LIED: Final = "Its extractor gave an answer that cannot be."
_ENDED: Final = "Reading it ended the process that read it."


def _over(budget: Budget, spent: int) -> str:
    if spent > budget.bytes:
        return f"Reading it takes more than {budget.bytes // MIB} MiB of the file."
    return f"Reading it takes more than {budget.reads} ranges of the file."


def _fields(answer: Done, over: str) -> Fields | None:
    """Return what a worker found. A library may take the end of its budget for the end of the file: the sentence is ours."""
    if answer.fields is None:
        return Fields(problem=over) if over else None
    try:
        fields = unpack(answer.fields)
    except BadMessage as error:
        raise Failed(_LIED) from error
    return msgspec.structs.replace(fields, problem=over[:MAX_VALUE]) if over else fields
