"""``wio mc``, the doing: finds the real ``mc``, starts it with keys in its environment, passes on what it prints."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Protocol

from protocol.errors import BadSetting, NotAllowed, NotFound, NotSignedIn, WioError
from protocol.grants import Permission
from protocol.names import shown
from wio import mc_lasting
from wio.credentials import Opening
from wio.mc import Line, Refusal, Run, harmless, is_error, lacking, only_in_first, plan, read, refusal, renamed, repeatable
from wio.mc_lasting import Again

_HELD: Final = 200
"""Lines kept back at most."""
_INTERRUPTED: Final = 128
"""From here on an exit code says that a signal ended the program."""
_INTERRUPTED_BY_HAND: Final = 130


def find_mc(environment: Mapping[str, str] | None = None) -> str:
    """Return the path of mc: WIO_MC, else ``mcli`` or ``mc`` on PATH, else the one ``deploy/setup.sh`` provided.

    Raises BadSetting where there is none. Another program is called mc, too (Midnight Commander): it is told apart.
    """
    environment = os.environ if environment is None else environment
    chosen = environment.get("WIO_MC")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise BadSetting(f"WIO_MC says {shown(chosen)}, which is no program.", todo="Point WIO_MC at mc.")
        return found
    others = []
    for name in ("mcli", "mc"):
        on_path = shutil.which(name, path=environment.get("PATH"))
        if on_path and _is_minio_client(on_path):
            return on_path
        others += [on_path] if on_path else []
    cache = environment.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    provided = shutil.which("mc", path=str(Path(cache) / "wio" / "bin"))
    if provided is None:
        other = f" {shown(others[0])} is another program, perhaps Midnight Commander." if others else ""
        raise BadSetting(
            f"mc, the MinIO client, is not installed here.{other}",
            todo="Install it (as mc or mcli), or point WIO_MC at it. wio get, wio put and wio creds work without it.",
        )
    return provided


def _is_minio_client(program: str) -> bool:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False)  # noqa: S603  - found on PATH
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"Midnight" not in answer.stdout and b"version" in answer.stdout


class OpenPaths(Protocol):
    """Opens paths of a command line. ``long``: keys that last a long copy. ``confirmed``: the hub is asked in any case."""

    def __call__(self, paths: Sequence[str], *, long: bool, confirmed: bool) -> Sequence[Opening]:
        """Return an opening for each path; raises what the hub answers."""
        ...


class Holdback:
    """Keeps back what mc says of a refused key, and its errors after that, until it is known why it was refused.

    Used by the threads that read mc's output. Past ``_HELD`` lines everything goes out: a long list of errors is an answer.
    """

    def __init__(self, put: Callable[[IO[bytes], bytes], object], *, wanted: bool) -> None:
        self._put = put
        self._lock = threading.Lock()
        self._lines: list[tuple[IO[bytes], bytes]] = []
        self._wanted = wanted
        self.refusal = Refusal.NONE
        self.overflowed = False
        self.heard: Callable[[], None] = lambda: None
        """Called for each line that is taken."""

    def takes(self, sink: IO[bytes], line: bytes) -> bool:
        """Take an error, or leave it to the caller to print."""
        found = refusal(line)
        with self._lock:
            if not self._wanted or (found is Refusal.NONE and not self._lines):
                return False
            if self.refusal is not Refusal.SURE and found is not Refusal.NONE:
                self.refusal = found
            self._lines.append((sink, line))
            self.overflowed = len(self._lines) > _HELD
            self._wanted = not self.overflowed
        self.heard()
        if self.overflowed:
            self.release()
        return True

    def release(self) -> None:
        """Print what was kept back."""
        with self._lock:
            lines, self._lines = self._lines, []
        for sink, line in lines:
            self._put(sink, line)


@dataclass(frozen=True)
class Ended:
    """How a run of mc ended. ``printed``: something of its answer is out already; ``held``: what is not said yet."""

    code: int
    printed: bool
    refusal: Refusal
    held: Holdback


@dataclass(frozen=True)
class Missing:
    """What is not at the target of a mirror: so many files, one of them. ``code``: of the comparison itself."""

    code: int
    count: int
    first: str
    refusal: Refusal


class Runner:
    """Starts mc, with keys in its environment, and passes on what it prints."""

    def __init__(self, program: str, *, environment: Mapping[str, str], out: IO[bytes], err: IO[bytes], terminal: bool) -> None:
        self._program = program
        self._environment = environment
        self._out = out
        self._err = err
        self._terminal = terminal

    def run(self, run: Run, *, hold: bool = False, over: Callable[[Refusal], bool] = lambda _: False) -> Ended:
        """Run mc once; its exit code is 130 if it was interrupted. ``hold``: keep back what it says of a refused key.

        ``over`` says of a refusal whether the key has ended: mc is then stopped, as it would try every file that is left.
        """
        # A progress bar is drawn by mc itself. JSON has none, and its errors have to be seen here.
        direct = run.shape.raw or (run.shape.progress and self._terminal and "--json" not in run.arguments)
        process = subprocess.Popen(  # noqa: S603  - the program a person chose, with arguments and no shell
            [self._program, *run.arguments],
            env={**self._environment, **run.environment},
            stdout=None if direct else subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        end_of_head, printed = threading.Event(), threading.Event()
        held = Holdback(_put, wanted=hold)
        cut = threading.Event()

        def stop_if_over() -> None:
            if not cut.is_set() and over(held.refusal):
                cut.set()
                process.terminate()

        held.heard = stop_if_over
        pumps = [threading.Thread(target=self._pump_errors, args=(process.stderr, run, held, end_of_head))]
        if not direct:
            pumps.append(threading.Thread(target=self._pump_answer, args=(process.stdout, run, held, printed)))
        for pump in pumps:
            pump.start()
        with _ending(process):
            code = _wait(process)
        for pump in pumps:
            pump.join()
        if code == 1 and end_of_head.is_set():
            code = 0
        if cut.is_set() and code != _INTERRUPTED_BY_HAND:
            code = 1  # we ended it
        if code == 0 and run.arguments[0] == "mirror" and held.refusal is not Refusal.NONE:
            code = 1  # mc says that all is well even where the key was refused
        unseen = direct and "--json" in run.arguments  # errors are on standard output then, which went past us
        if hold and unseen and code == 1:
            return Ended(code, printed=True, refusal=Refusal.PERHAPS, held=held)
        return Ended(code, printed.is_set() or held.overflowed, held.refusal if code == 1 else Refusal.NONE, held)

    def empty(self, target: str, run: Run) -> bool:
        """Say whether nothing lies at the target of a run, as mc sees it; False where that cannot be known."""
        if not target.partition("/")[0] or f"MC_HOST_{target.partition('/')[0]}" not in run.environment:
            place = Path(target).expanduser()
            return not place.exists() or (place.is_dir() and next(place.iterdir(), None) is None)
        said = subprocess.run(  # noqa: S603  - as in run
            [self._program, "ls", "--quiet", target if target.endswith("/") else f"{target}/"],
            env={**self._environment, **run.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return said.returncode == 0 and not said.stdout.strip()

    def missing(self, run: Run) -> Missing:
        """Compare what a run of mirror had to copy with what lies at its target, as ``mc diff`` sees it."""
        process = subprocess.Popen(  # noqa: S603  - as in run
            [self._program, "diff", "--json", *run.arguments[-2:]],
            env={**self._environment, **run.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        count, first, refused = 0, "", Refusal.NONE
        with _ending(process):
            for line in process.stdout or ():
                if is_error(line):
                    refused = max(refused, refusal(line), key=lambda one: one.value)
                elif name := only_in_first(line):
                    count += 1
                    first = first or renamed(name, run.names).decode("utf-8", "replace")
            code = _wait(process)
        if process.stdout is not None:
            process.stdout.close()
        return Missing(code, count, first, refused)

    def _pump_errors(self, source: IO[bytes], run: Run, held: Holdback, end_of_head: threading.Event) -> None:
        with source:
            for line in source:
                if run.arguments[0] == "head" and line.rstrip().endswith(b"`. EOF."):
                    end_of_head.set()
                    continue
                said = renamed(line, run.names)
                if not held.takes(self._err, said) and not _put(self._err, said):
                    return  # closing our end tells mc

    def _pump_answer(self, source: IO[bytes], run: Run, held: Holdback, printed: threading.Event) -> None:
        with source:
            for line in source:
                said = renamed(line, run.names)
                if is_error(said) and held.takes(self._out, said):
                    continue
                printed.set()
                if not _put(self._out, said):
                    return


def _put(sink: IO[bytes], line: bytes) -> bool:
    """Print one line; False if nobody reads any more."""
    try:
        sink.write(harmless(line) if sink.isatty() else line)
        sink.flush()
    except BrokenPipeError:
        return False
    return True


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for mc. Ctrl-C reaches it by itself (one process group): it is given the time to end in its own way."""
    try:
        return _code(process.wait())
    except KeyboardInterrupt:
        try:
            process.wait(timeout=5)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
        return 130


@contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hand on a request to end: mc has keys, and does not outlive us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        process.send_signal(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [(number, signal.signal(number, end)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _code(code: int) -> int:
    """Return an exit code as a shell gives it: 128 and the signal for a program that a signal ended."""
    return code if code >= 0 else 128 - code


def run_mc(
    arguments: Sequence[str],
    open_paths: OpenPaths,
    *,
    note: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> int:
    """Do what stands after ``wio mc`` and return the exit code: mc's own, the first that is not 0 where it ran twice.

    Where the storage server refuses a key that was kept, the hub is asked, once: its refusal is raised instead of mc's bare
    one; if access is there, what only looks is run again with the new key, and of the rest the person is told by ``note``.
    A copy that outlives its key goes on with a new one (``mc_lasting``). Of several runs that copy, none begins after one
    that failed, and nothing begins after an interruption.
    """
    environment = os.environ if environment is None else environment
    runner = Runner(
        find_mc(environment),
        environment=environment,
        out=sys.stdout.buffer,
        err=sys.stderr.buffer,
        terminal=sys.stdout.isatty(),
    )
    return _Job(read(arguments), runner, open_paths, note, clock).do()


class _Job:
    """One command line on its way: the runs it needs, one after the other."""

    def __init__(
        self,
        line: Line,
        runner: Runner,
        open_paths: OpenPaths,
        note: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._line = line
        self._runner = runner
        self._open_paths = open_paths
        self._note = note
        self._clock = clock
        self._new_keys = 0

    def do(self) -> int:
        """Run everything; return the first exit code that is not 0."""
        codes: list[int] = []
        _, runs = self._planned(confirmed=False)
        while len(codes) < len(runs):
            ended, runs = self._one(len(codes), runs)
            if ended is None:
                continue  # again, with a new key
            codes.append(ended)
            if ended >= _INTERRUPTED or (ended and self._line.shape.target):
                break
        return next((code for code in codes if code), 0)

    def _planned(self, *, confirmed: bool) -> tuple[dict[str, Opening], tuple[Run, ...]]:
        openings = self._open_paths(self._line.paths, long=self._line.lasting, confirmed=confirmed)
        opened = dict(zip(self._line.paths, openings, strict=True))
        return opened, plan(self._line, opened)

    def _one(self, number: int, runs: tuple[Run, ...]) -> tuple[int | None, tuple[Run, ...]]:
        """Do one run and whatever it takes to finish it; its exit code, or None where it is to be run again."""
        line, run = self._line, runs[number]
        how = mc_lasting.again(line, run)
        if how is Again.AS_MIRROR and not self._runner.empty(run.arguments[-1], run):
            how = Again.NOT
        left = None
        while True:
            began = self._clock()
            ended = self._runner.run(run, hold=run.kept or line.lasting, over=self._over(run, began))
            lost = self._lost(run, ended)
            if lost.refusal is not Refusal.NONE:
                ended = replace(ended, code=lost.code or 1, refusal=lost.refusal)
            over = self._over(run, began)(ended.refusal)
            if over and how is not Again.NOT and self._new_keys < mc_lasting.MOST:
                self._note("wio: The key of this copy was at its end. It goes on with a new one.")
            elif lost.count and not ended.code and (left is None or lost.count < left):
                left = lost.count
            else:
                break
            self._new_keys += 1
            opened, runs = self._planned(confirmed=True)
            if left is not None and lacking(line, opened) is not None:
                _explain(line, opened, ended, self._note)
                return 1, runs
            run = mc_lasting.as_mirror(line, runs[number]) if how is Again.AS_MIRROR else runs[number]
        if lost.count and not ended.code:
            return self._incomplete(lost), runs
        if ended.refusal is not Refusal.NONE and not over and (run.kept or self._new_keys):
            return self._refused(run, ended, runs)
        ended.held.release()
        if over:
            self._note("wio: The key of this copy was at its end, and not everything is copied.")
            self._note("     wio mc mirror, run again, goes on where it stopped.")
        return ended.code, runs

    def _over(self, run: Run, began: float) -> Callable[[Refusal], bool]:
        """Say of a refusal whether it came because the key of a copy was at its end."""
        if not self._line.lasting:
            return lambda _: False
        return lambda refused: mc_lasting.ended(run, refused, began=began, now=self._clock())

    def _lost(self, run: Run, ended: Ended) -> Missing:
        """Say what a mirror that ended well left out: mc passes over refused files, and says nothing."""
        if ended.code or run.arguments[0] != "mirror" or not mc_lasting.comparable(self._line):
            return Missing(0, 0, "", Refusal.NONE)
        return self._runner.missing(run)

    def _incomplete(self, lost: Missing) -> int:
        files = "file is" if lost.count == 1 else "files are"
        self._note(f"wio: {lost.count:,} {files} not at the target, the first is {shown(lost.first)}.")
        self._note("     mc mirror passes over what cannot be read or written, and says nothing of it.")
        return 1

    def _refused(self, run: Run, ended: Ended, runs: tuple[Run, ...]) -> tuple[int | None, tuple[Run, ...]]:
        """Ask the hub why the storage server refused a key."""
        try:
            opened, renewed = self._planned(confirmed=True)
        except (NotFound, NotAllowed, NotSignedIn):
            raise
        except WioError:  # the hub cannot say: what mc said stands
            renewed = ()
        if len(renewed) != len(runs):
            ended.held.release()
            return ended.code, runs
        # From here on without kept keys: the hub is not asked again.
        known = ended.refusal is Refusal.SURE and lacking(self._line, opened) is None
        if known and repeatable(self._line, run, printed=ended.printed):
            return None, renewed
        _explain(self._line, opened, ended, self._note)
        return ended.code, renewed


def _explain(line: Line, opened: Mapping[str, Opening], ended: Ended, note: Callable[[str], None]) -> None:
    """Print what mc said, and what the hub's answer adds to it."""
    ended.held.release()
    short = lacking(line, opened)
    if short is not None:
        workspace, may = shown(short.place.workspace), short.place.permission
        if may is Permission.TIDY:
            note(f"wio: {workspace} is over quota: you can read and delete there, and write again once it is below.")
        else:
            note(f"wio: {workspace} is shared with you to {may.value} only; mc {line.command} needs more.")
    elif ended.refusal is Refusal.SURE:
        note("wio: The key used was an old one. There is a new one now: run the command again.")
    else:
        note("wio: mc says so of a file that is not there and of one that the key used does not open.")
        note("     The key was renewed just now: if the file is there, run the command again.")


def run_help(arguments: Sequence[str]) -> int:
    """Show mc's own help for one of its commands."""
    return subprocess.run([find_mc(), *arguments], check=False).returncode  # noqa: S603  - the program a person chose
