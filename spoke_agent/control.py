"""The owner's line to a running agent: a socket in its state directory, which only its user can reach.

One question, one answer, a line of JSON each; then the connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from protocol.errors import BadMessage, Internal, Problem, Unreachable, WioError, error_of
from spoke_agent.owner import Answer, Ask

NAME: Final = "control.sock"
MAX_QUESTION: Final = 4096
MAX_ANSWER: Final = 16 * 1024 * 1024
LONGEST_ADDRESS: Final = 100
"""Bytes of a socket's address: the system takes 107."""
ASK_S: Final = 5.0


class _Reply(msgspec.Struct, frozen=True):
    answer: msgspec.Raw = msgspec.Raw(b"null")
    problem: Problem | None = None


class NoneRuns(Exception):
    """Not an error: no agent listens in this state directory. The command then does the work itself."""


@contextlib.contextmanager
def _address(state: Path) -> Iterator[str]:
    """Give the socket's address, by way of an open directory where its path is too long for a socket."""
    path = state / NAME
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{NAME}"
    finally:
        os.close(directory)


@contextlib.asynccontextmanager
async def listening(state: Path, answer: Callable[[Ask], Awaitable[Answer]]) -> AsyncIterator[None]:
    """Answer the owner for as long as this lasts. The caller holds the directory's lock."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            writer.write(msgspec.json.encode(await _replied(reader, answer)) + b"\n")
            await writer.drain()
        writer.close()

    path = state / NAME
    path.unlink(missing_ok=True)
    with _address(state) as address:
        server = await asyncio.start_unix_server(serve, address, limit=MAX_QUESTION)
    try:
        path.chmod(0o600)
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _replied(reader: asyncio.StreamReader, answer: Callable[[Ask], Awaitable[Answer]]) -> _Reply:
    try:
        async with asyncio.timeout(ASK_S):
            line = await reader.readline()
        ask = msgspec.json.decode(line, type=Ask)
        return _Reply(msgspec.Raw(msgspec.json.encode(await answer(ask))))
    except (msgspec.MsgspecError, ValueError, TimeoutError):
        return _Reply(problem=BadMessage("The agent does not understand the question: is it another version?").problem)
    except WioError as error:
        return _Reply(problem=error.problem)
    except Exception as error:  # noqa: BLE001 - the owner gets an answer whatever happens
        return _Reply(problem=Internal(f"The agent failed at this ({type(error).__name__}).").problem)


async def ask_running(state: Path, ask: Ask) -> bytes:
    """Ask the agent that runs on a state directory; return its answer, JSON. Raises NoneRuns, or what the agent raised."""
    try:
        with _address(state) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=MAX_ANSWER)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoneRuns from error
    try:
        writer.write(msgspec.json.encode(ask) + b"\n")
        await writer.drain()
        line = await reader.readline()
    except (ConnectionError, ValueError) as error:
        raise Unreachable("The running agent did not answer.") from error
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    if not line:
        raise Unreachable("The running agent ended before it answered.")
    reply = msgspec.json.decode(line, type=_Reply)
    if reply.problem is not None:
        raise error_of(reply.problem)
    return bytes(reply.answer)
