"""The harness itself: a fault that does not happen would let everything pass."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.dying import Point
from tests.faults.wire import Act, Frames, Trouble, Wire

HEAD = b"GET /agent/v1 HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"


def frame(size: int) -> bytes:
    """Return a masked WebSocket frame with so many bytes in it."""
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return b"\x82" + length + b"mask" + b"x" * size


@pytest.mark.parametrize("step", [1, 3, 1000, 1_000_000])
def test_frames_are_found_however_they_are_cut(step: int) -> None:
    sizes = [0, 5, 125, 126, 70_000, 1]
    sent = HEAD + b"".join(frame(size) for size in sizes)
    frames = Frames()
    got = [segment for at in range(0, len(sent), step) for segment in frames.feed(sent[at : at + step])]
    assert b"".join(segment.data for segment in got) == sent
    assert [segment.length for segment in got if segment.length and segment.end == segment.length] == [
        len(frame(size)) for size in sizes
    ]


@pytest.fixture
def heard() -> Iterator[tuple[int, list[bytes]]]:
    """A server that keeps what each connection said."""
    listening = socket.create_server(("127.0.0.1", 0))
    kept: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                said = b""
                try:
                    while data := connection.recv(65_536):
                        said += data
                except ConnectionResetError:
                    pass
                kept.append(said)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()[1], kept
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


def test_a_connection_is_cut_in_the_middle_of_the_frame_that_was_named(heard: tuple[int, list[bytes]]) -> None:
    port, kept = heard
    with Wire(port, web=True) as wire:
        wire.arm(Trouble(Act.CUT, frames=2, into=0.5))
        with socket.create_connection(("127.0.0.1", wire.port)) as client:
            client.sendall(HEAD + frame(10) + frame(20) + frame(94))
            client.settimeout(10)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert wire.counted["cut"] == 1
        assert wire.armed == 0
    assert wire.counted["bytes-up"] == len(HEAD + frame(10) + frame(20)) + 50
    del kept


def test_one_byte_arrives_as_another_and_the_rest_as_it_was(heard: tuple[int, list[bytes]]) -> None:
    port, kept = heard
    sent = HEAD + frame(10) + frame(94)
    with Wire(port, web=True) as wire:
        wire.arm(Trouble(Act.CORRUPT, frames=1, into=0.5))
        with socket.create_connection(("127.0.0.1", wire.port)) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            client.settimeout(10)
            assert client.recv(1) == b""
    [got] = kept
    assert [at for at, (one, other) in enumerate(zip(sent, got, strict=True)) if one != other] == [len(HEAD + frame(10)) + 50]


@pytest.mark.parametrize(("text", "before", "after"), [("before:3", 2, 2), ("after:3", 3, 2), ("after", 1, 0)])
def test_a_process_dies_at_the_call_that_was_named(tmp_path: Path, text: str, before: int, after: int) -> None:
    (tmp_path / "victim.py").write_text(
        "import asyncio\n"
        "async def work(n): print('in', n, flush=True)\n"
        "async def go():\n"
        "    for n in range(9):\n"
        "        await work(n)\n"
        "        print('out', n, flush=True)\n"
        "def main(): asyncio.run(go())\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.dying", "--at", f"victim:work:{text}", "--", "victim"],
        env={"PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (done.stdout.count("in"), done.stdout.count("out")) == (before, after)


def test_a_point_that_cannot_be_is_refused() -> None:
    assert str(Point.parse("a.b:C.d")) == "a.b:C.d:before:1"
    with pytest.raises(ValueError, match="is not"):
        Point.parse("a.b:C.d:after:0")
