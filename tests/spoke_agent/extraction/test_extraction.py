"""The pool against extractors and files that hang, crash, eat memory, read for ever and lie; and against storage that fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from protocol.errors import Internal, StorageUnreachable, WioError
from protocol.fields import Fields
from protocol.messages import IndexLevel
from spoke_agent.extraction import Budget, Extraction
from spoke_agent.extraction.catalogue import Known

MIB = 1024 * 1024
DEADLINE_S = 30

PLUGINS = """
    import ctypes, os, sys, time
    from protocol.fields import Fields, fitted

    class Base:
        version = 1
        what = "a test file"
        needs = ()
        @property
        def name(self): return type(self).__name__.lower()
        @property
        def endings(self): return ("." + self.name,)
        def fits(self, key, head): return key.endswith(self.endings)
        def extract(self, source, wanted): return fitted("test", {"test.pid": os.getpid()})

    class Well(Base): pass
    class Hang(Base):
        def extract(self, source, wanted): time.sleep(3600)
    class Spin(Base):
        def extract(self, source, wanted):
            while True: pass
    class Quit(Base):
        def extract(self, source, wanted): os._exit(0)
    class Leave(Base):
        def extract(self, source, wanted): sys.exit(3)
    class Segv(Base):
        def extract(self, source, wanted): ctypes.string_at(0)
    class Memory(Base):
        def extract(self, source, wanted):
            kept = []
            while True: kept.append(bytearray(16 * 1024 * 1024))
    class Blob(Base):
        def extract(self, source, wanted): return bytearray(8 << 30)
    class Endless(Base):
        def extract(self, source, wanted):
            while True:
                source.seek(0)
                while source.read(1 << 20): pass
    class Stubborn(Base):
        def extract(self, source, wanted):
            while True:
                try:
                    source.seek(0)
                    while source.read(1 << 20): pass
                except BaseException: pass
    class Swallow(Base):
        def extract(self, source, wanted):
            try: source.read()
            except BaseException: pass
            return fitted("test", {"test.some": 1})
    class Sip(Base):
        def extract(self, source, wanted):
            for number in range(100000): source._fetch(number, 1)
    class Giant(Base):
        def extract(self, source, wanted): return Fields("test", {}, {}, "x" * 50_000_000)
    class Wrong(Base):
        def extract(self, source, wanted): return {"a": 1}
    class Types(Base):
        def extract(self, source, wanted): return Fields(7, {"A b": object()}, None, 3.5, ())
    class Odd(Base):
        def extract(self, source, wanted): return Fields("test", {"NOT A NAME": 1})
    class Raises(Base):
        def extract(self, source, wanted): raise ValueError("Jane Doe, born 1970")
    class Fitless(Base):
        def fits(self, key, head):
            if key.endswith(".fitless"): raise RuntimeError("secret")
            return False
    class Shout(Base):
        def extract(self, source, wanted):
            print("x" * 100000); sys.stdout.flush(); os.write(1, b"y" * 100000); os.write(2, b"z")
            return fitted("test", {"test.fine": True})
    class Lie(Base):
        def extract(self, source, wanted):
            import gc, socket
            line = next(one for one in gc.get_objects() if isinstance(one, socket.socket))
            line.sendall({"garbage.lie": b"\\0\\0\\0\\x04abcd", "length.lie": b"\\x7f\\xff\\xff\\xff" + b"a" * 5000,
                          "range.lie": b"\\0\\0\\0\\x04\\x93\\x05\\xcc\\xff"}[source.key])
            time.sleep(3600)
    class Write(Base):
        def extract(self, source, wanted):
            with open(source.head.decode(), "w") as file: file.write("x" * 10)
    class Env(Base):
        def extract(self, source, wanted):
            return fitted("test", {"test.env": " ".join(sorted(os.environ)), "test.nice": os.nice(0),
                                   "test.files": " ".join(sorted(os.listdir("/proc/self/fd"))), "test.folder": os.getcwd()})
    class Fork(Base):
        def extract(self, source, wanted):
            child = os.fork()
            if child == 0:
                time.sleep(3600)
            with_child = fitted("test", {"test.child": child})
            if source.key.startswith("hang"): time.sleep(3600)
            return with_child
    class Needy(Base):
        needs = ("nothing_of_that_name",)
    class Nameless:
        pass
"""

NAMES = [
    "Well", "Hang", "Spin", "Quit", "Leave", "Segv", "Memory", "Blob", "Endless", "Stubborn", "Swallow", "Sip", "Giant",
    "Wrong", "Types", "Odd", "Raises", "Fitless", "Shout", "Lie", "Write", "Env", "Fork", "Needy", "Nameless",
]  # fmt: skip

Open = Callable[..., Any]


def package(folder: Path, name: str, source: str, classes: list[str]) -> None:
    """Lay out an installed package that offers extractors."""
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    about = folder / f"{name}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    points = "\n".join(f"{one.lower()} = {name}:{one}" for one in classes)
    (about / "entry_points.txt").write_text(f"[wio.extractors]\n{points}\n")


@pytest.fixture(scope="module", autouse=True)
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("plugins")
    package(folder, "odd_extractors", PLUGINS, NAMES)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
async def opens() -> AsyncIterator[Open]:
    made: list[Extraction] = []

    def one(**options: object) -> Extraction:
        options.setdefault("budget", Budget(seconds=20, bytes=4 * MIB, reads=200, memory=384 * MIB))
        made.append(Extraction(**options))
        return made[-1]

    yield one
    for extraction in made:
        await extraction.close()
        assert not extraction._busy
        assert not extraction._resting


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Extraction]:
    """One pool that goes through all of it."""
    made = Extraction(budget=Budget(seconds=20, bytes=4 * MIB, reads=200, memory=384 * MIB))
    yield made
    await made.close()


def zeros(size: int) -> Callable[[int, int], Awaitable[bytes]]:
    async def read(offset: int, length: int) -> bytes:
        assert 0 <= offset < offset + length <= size
        return bytes(length)

    return read


async def take(extraction: Extraction, name: str, size: int = 100) -> Fields | None:
    return await extraction.extract(name, size, IndexLevel.CONTENT, zeros(size))


async def busy(extraction: Extraction) -> None:
    """Wait until a worker is at a file."""
    until = time.monotonic() + DEADLINE_S
    while not extraction._busy:
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


async def gone(*pids: int) -> None:
    """Wait until processes have ended."""
    until = time.monotonic() + DEADLINE_S
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < until, f"still there: {pids}"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a.quit", "Reading it ended the process that read it."),
        ("a.segv", "Reading it ended the process that read it."),
        ("a.memory", "Reading it takes more memory than it may."),
        ("a.blob", "Reading it takes more memory than it may."),
        ("a.endless", "Reading it takes more than 4 MiB of the file."),
        ("a.stubborn", "Reading it takes more than 4 MiB of the file."),
        ("a.sip", "Reading it takes more than 200 ranges of the file."),
        ("a.leave", "It cannot be read as a test file (SystemExit)."),
        ("a.raises", "It cannot be read as a test file (ValueError)."),
        ("a.fitless", "It cannot be read as a test file (RuntimeError)."),
        ("a.wrong", "Its extractor gave something that is no fields."),
        ("a.types", "Its extractor gave fields that cannot be."),
        ("a.odd", "Its extractor gave fields that cannot be."),
        ("garbage.lie", "Its extractor gave an answer that cannot be."),
        ("length.lie", "Its extractor gave an answer that cannot be."),
        ("range.lie", "Its extractor gave an answer that cannot be."),
    ],
)
async def test_what_an_extractor_does_costs_only_the_file_it_did_it_to(shared: Extraction, name: str, problem: str) -> None:
    found = await asyncio.wait_for(take(shared, name, 50 * MIB), DEADLINE_S)
    assert found == Fields(problem=problem)
    assert (await take(shared, "b.well")).kind == "test"


@pytest.mark.parametrize("name", ["a.hang", "a.spin"])
async def test_a_file_that_takes_for_ever_is_given_up(opens: Open, name: str) -> None:
    extraction = opens(budget=Budget(seconds=1, memory=384 * MIB))
    found = await asyncio.wait_for(take(extraction, name), DEADLINE_S)
    assert found == Fields(problem="Reading it takes longer than 1 seconds.")
    assert (await take(extraction, "b.well")).kind == "test"


async def test_that_a_library_takes_long_to_load_is_not_the_files_fault(
    opens: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_library.py").write_text("import time; time.sleep(0.8)")
    package(tmp_path, "slow", """
        import time
        from odd_extractors import Base, Lie
        class Slow(Base):
            needs = ("slow_library",)
            def extract(self, source, wanted):
                time.sleep(0.8)
                return super().extract(source, wanted)
    """, ["Slow"])  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    extraction = opens(budget=Budget(seconds=1.4, memory=384 * MIB))
    assert (await take(extraction, "a.slow")).kind == "test"
    assert (await take(extraction, "a.slow")).kind == "test"


async def test_an_answer_of_hundreds_of_megabytes_is_not_taken(opens: Open) -> None:
    extraction = opens()
    assert (await take(extraction, "a.giant")).problem == "Its extractor found more than can be kept."


async def test_what_was_found_before_the_budget_ended_is_kept_with_the_problem(opens: Open) -> None:
    found = await take(opens(), "a.swallow", 50 * MIB)
    assert found == Fields("test", {"test.some": 1}, problem="Reading it takes more than 4 MiB of the file.")


async def test_a_worker_knows_no_variables_holds_no_files_and_writes_none(
    opens: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WIO_SECRET", "hidden")
    extraction = opens()
    values = (await take(extraction, "a.env")).values
    assert "WIO_SECRET" not in values["test.env"]
    assert values["test.nice"] >= 10
    assert values["test.folder"] == "/"
    assert len(values["test.files"].split()) <= 6  # three that all have, its line, what it opened to see this, /dev/null
    target = tmp_path / "written"
    body = str(target).encode()

    async def read(offset: int, length: int) -> bytes:
        return body[offset : offset + length]

    found = await extraction.extract("a.write", len(body), IndexLevel.CONTENT, read)
    assert found.problem
    assert not target.exists() or target.read_bytes() == b""


async def test_what_an_extractor_prints_goes_nowhere(opens: Open) -> None:
    assert (await take(opens(), "a.shout")).values == {"test.fine": True}


async def test_what_a_worker_started_ends_with_it(opens: Open) -> None:
    extraction = opens(budget=Budget(seconds=1, memory=384 * MIB))
    child = (await take(extraction, "a.fork")).values["test.child"]
    assert psutil.pid_exists(child)
    assert (await take(extraction, "hang.fork")).problem.startswith("Reading it takes longer")
    await gone(child)  # the one of the file before, too


async def test_one_process_reads_many_files_and_is_replaced_after_some(opens: Open) -> None:
    extraction = opens(recycle=3)
    pids = [(await take(extraction, "a.well")).values["test.pid"] for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
    assert os.getpid() not in pids
    await gone(*set(pids[:6]))


async def test_no_more_processes_than_allowed_run_at_a_time(opens: Open) -> None:
    for workers in (1, 2):
        extraction = opens(workers=workers)
        found = await asyncio.gather(*(take(extraction, "a.well") for _ in range(20)))
        assert len({one.values["test.pid"] for one in found}) <= workers


async def test_idle_workers_end_and_the_next_file_starts_another(opens: Open) -> None:
    extraction = opens(idle_s=0.05)
    first = (await take(extraction, "a.well")).values["test.pid"]
    await gone(first)
    assert (await take(extraction, "a.well")).values["test.pid"] != first


async def test_a_worker_that_somebody_killed_between_files_costs_no_file(opens: Open) -> None:
    extraction = opens()
    first = (await take(extraction, "a.well")).values["test.pid"]
    os.kill(first, signal.SIGKILL)
    found = await take(extraction, "a.well")
    assert found.problem == ""
    assert found.values["test.pid"] != first


async def test_what_reading_the_storage_raises_comes_out_and_the_worker_goes_on(opens: Open) -> None:
    extraction = opens()
    pid = (await take(extraction, "a.well")).values["test.pid"]

    async def away(offset: int, length: int) -> bytes:
        if offset == 0:
            return bytes(length)
        raise StorageUnreachable("The storage server does not answer.")

    for name in ("a.endless", "a.swallow"):
        with pytest.raises(StorageUnreachable):
            await extraction.extract(name, 3 * MIB, IndexLevel.CONTENT, away)
    assert (await take(extraction, "a.well")).values["test.pid"] == pid
    with pytest.raises(StorageUnreachable):
        await asyncio.wait_for(extraction.extract("a.stubborn", 3 * MIB, IndexLevel.CONTENT, away), DEADLINE_S)
    assert (await take(extraction, "a.well")).values["test.pid"] != pid


async def test_any_error_of_the_first_read_comes_out(opens: Open) -> None:
    class Changed(WioError):
        pass

    async def read(_offset: int, _length: int) -> bytes:
        raise Changed("It is another one now.")

    with pytest.raises(Changed):
        await opens().extract("a.well", 10, IndexLevel.CONTENT, read)


async def test_slow_storage_is_not_the_files_fault(opens: Open) -> None:
    extraction = opens(budget=Budget(seconds=1, memory=512 * MIB))
    await take(extraction, "a.well")

    async def slow(_offset: int, length: int) -> bytes:
        await asyncio.sleep(0.7)  # what is tested: time that passes here does not count
        return bytes(length)

    found = await extraction.extract("a.swallow", 3 * MIB, IndexLevel.CONTENT, slow)
    assert found == Fields("test", {"test.some": 1})


async def test_a_file_that_is_given_up_by_its_caller_takes_its_worker_along(opens: Open) -> None:
    extraction = opens(budget=Budget(seconds=60, memory=512 * MIB))
    pid = (await take(extraction, "a.well")).values["test.pid"]
    task = asyncio.create_task(take(extraction, "a.hang"))
    await busy(extraction)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(pid)
    assert (await take(extraction, "a.well")).problem == ""


async def test_closing_ends_the_workers_even_those_that_hang(opens: Open) -> None:
    extraction = opens(budget=Budget(seconds=60, memory=512 * MIB))
    pid = (await take(extraction, "a.well")).values["test.pid"]
    task = asyncio.create_task(take(extraction, "a.hang"))
    await busy(extraction)
    await asyncio.wait_for(extraction.close(), DEADLINE_S)
    await gone(pid)
    with pytest.raises(Internal):
        await task
    with pytest.raises(Internal):
        await take(extraction, "a.well")


async def test_workers_end_with_the_agent_even_while_they_hang(tmp_path: Path) -> None:
    program = """
        import asyncio, os, sys
        from protocol.messages import IndexLevel
        from spoke_agent.extraction import Budget, Extraction
        async def read(offset, length): return bytes(length)
        async def main():
            extraction = Extraction(workers=2, budget=Budget(seconds=1))
            one = await extraction.extract("a.well", 9, IndexLevel.CONTENT, read)
            print(one.values["test.pid"], flush=True)
            hanging = asyncio.create_task(extraction.extract("a.spin", 9, IndexLevel.CONTENT, read))
            two = await extraction.extract("a.well", 9, IndexLevel.CONTENT, read)
            print(two.values["test.pid"], flush=True)
            os.kill(os.getpid(), 9)
        asyncio.run(main())
    """
    (tmp_path / "agent.py").write_text(textwrap.dedent(program))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, tmp_path / "agent.py"],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    pids = [int(pid) for pid in ran.stdout.split()]
    assert len(pids) == 2
    await gone(*pids)


async def test_extractors_that_lack_a_library_or_are_none_are_said_and_left_out(opens: Open) -> None:
    extraction = opens()
    await extraction.prepare()
    assert "The extractor needy is left out: nothing_of_that_name is not installed." in extraction.missing()
    assert "The extractor nameless cannot be used. It cannot be loaded (AttributeError)." in extraction.missing()
    assert len(extraction.missing()) == 2
    assert not extraction.wants("a.needy", 1)
    assert extraction.wants("a.well", 1)


def test_what_extractors_there_are_shows_in_their_versions(
    opens: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opens().versions()
    assert {"well=1", "image=1", "text=1"} <= set(before.split())
    assert "needy" not in before
    package(tmp_path, "newer", "from odd_extractors import Base\nclass Fresh(Base):\n    version = 7\n", ["Fresh"])
    monkeypatch.syspath_prepend(tmp_path)
    assert set(opens().versions().split()) - set(before.split()) == {"fresh=7"}


def test_extractors_that_hang_crash_or_shout_while_they_are_loaded_cost_only_themselves(
    opens: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, does in {
        "sleeper": "import time; time.sleep(3600)",
        "crasher": "import os; os._exit(1)",
        "shouter": "print('x' * 100000)\nfrom odd_extractors import Well",
        "eater": "bytearray(8 << 30)",
    }.items():
        package(tmp_path, name, does, ["Well"])
        entry = tmp_path / f"{name}-1.dist-info" / "entry_points.txt"
        entry.write_text(f"[wio.extractors]\n{name} = {name}:Well\n")
    monkeypatch.syspath_prepend(tmp_path)
    extraction = opens(listing_s=6)
    said = extraction.missing()
    assert "The extractor sleeper cannot be used. Importing it takes longer than 6 seconds." in said
    assert "The extractor crasher cannot be used. Importing it ended the process that did." in said
    assert "The extractor eater cannot be used. It cannot be loaded (MemoryError)." in said
    assert {"shouter=1", "well=1", "image=1"} <= set(extraction.versions().split())


def test_another_packages_extractor_comes_before_ours_of_the_same_name(
    opens: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "better", "from odd_extractors import Base\nclass Text(Base):\n    version = 99\n", ["Text"])
    monkeypatch.syspath_prepend(tmp_path)
    assert "text=99" in opens().versions().split()
    assert "text=1" not in opens().versions().split()


async def test_that_no_worker_starts_is_not_the_files_fault(opens: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    extraction = opens()
    await extraction.prepare()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Internal, match="does not start"):
        await take(extraction, "a.well")
    monkeypatch.undo()
    assert (await take(extraction, "a.well")).kind == "test"


def test_what_wios_own_extractors_lack_is_said_with_how_to_have_it() -> None:
    extraction = Extraction()
    assert not extraction.prepared
    lacks = Known("dicom", "spoke_agent.extractors.dicom:Dicom", missing=("pydicom",))
    extraction.__dict__["_known"] = (lacks, Known("theirs", "somebody.else:Theirs", missing=("theirlib",)))
    assert extraction.missing() == [
        "The extractor dicom is left out: pydicom is not installed. To have it: pip install 'workspacesio[extract]'",
        "The extractor theirs is left out: theirlib is not installed.",
    ]
