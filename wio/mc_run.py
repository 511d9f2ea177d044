"""``wio mc``, the doing: finds the real ``mc``, starts it with keys in its environment, passes on what it prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from protocol.errors import BadSetting, NotAllowed, NotFound, NotSignedIn, WioError
from protocol.grants import Permission
from protocol.names import shown
from wio.credentials import Opening
from wio.mc import Line, Refusal, Run, harmless, is_error, lacking, plan, read, refusal, renamed, repeatable

_HELD: Final = 200
"""Lines kept back at most."""


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
    for name in ("mcli", "mc"):
        on_path = shutil.which(name, path=environment.get("PATH"))
        if on_path and _is_minio_client(on_path):
            return on_path
    cache = environment.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    provided = shutil.which("mc", path=str(Path(cache) / "wio" / "bin"))
    if provided is None:
        raise BadSetting(
            "mc, the MinIO client, is not installed here.",
            todo="Install it, or point WIO_MC at it; wio creds works without it.",
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


class Runner:
    """Starts mc, with keys in its environment, and passes on what it prints."""

    def __init__(self, program: str, *, environment: Mapping[str, str], out: IO[bytes], err: IO[bytes], terminal: bool) -> None:
        self._program = program
        self._environment = environment
        self._out = out
        self._err = err
        self._terminal = terminal

    def run(self, run: Run, *, hold: bool = False) -> Ended:
        """Run mc once; its exit code is 130 if it was interrupted. ``hold``: keep back what it says of a refused key."""
        direct = run.shape.raw or (run.shape.progress and self._terminal)
        process = subprocess.Popen(  # noqa: S603  - the program a person chose, with arguments and no shell
            [self._program, *run.arguments],
            env={**self._environment, **run.environment},
            stdout=None if direct else subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        end_of_head, printed = threading.Event(), threading.Event()
        held = Holdback(_put, wanted=hold)
        pumps = [threading.Thread(target=self._pump_errors, args=(process.stderr, run, held, end_of_head))]
        if not direct:
            pumps.append(threading.Thread(target=self._pump_answer, args=(process.stdout, run, held, printed)))
        for pump in pumps:
            pump.start()
        code = _wait(process)
        for pump in pumps:
            pump.join()
        if code == 1 and end_of_head.is_set():
            code = 0
        unseen = direct and "--json" in run.arguments  # errors are on standard output then, which went past us
        if hold and unseen and code == 1:
            return Ended(code, printed=True, refusal=Refusal.PERHAPS, held=held)
        return Ended(code, printed.is_set() or held.overflowed, held.refusal if code == 1 else Refusal.NONE, held)

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


def _code(code: int) -> int:
    """Return an exit code as a shell gives it: 128 and the signal for a program that a signal ended."""
    return code if code >= 0 else 128 - code


def run_mc(
    arguments: Sequence[str],
    open_paths: OpenPaths,
    *,
    note: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Do what stands after ``wio mc`` and return the exit code: mc's own, the first that is not 0 where it ran twice.

    Where the storage server refuses a key that was kept, the hub is asked, once: its refusal is raised instead of mc's bare
    one; if access is there, what only looks is run again with the new key, and of the rest the person is told by ``note``.
    """
    environment = os.environ if environment is None else environment
    line = read(arguments)
    program = find_mc(environment)
    runner = Runner(
        program,
        environment=environment,
        out=sys.stdout.buffer,
        err=sys.stderr.buffer,
        terminal=sys.stdout.isatty(),
    )

    def planned(*, confirmed: bool) -> tuple[dict[str, Opening], tuple[Run, ...]]:
        openings = open_paths(line.paths, long=line.lasting, confirmed=confirmed)
        opened = dict(zip(line.paths, openings, strict=True))
        return opened, plan(line, opened)

    _, runs = planned(confirmed=False)
    codes: list[int] = []
    while len(codes) < len(runs):
        run = runs[len(codes)]
        ended = runner.run(run, hold=run.kept)
        if ended.refusal is not Refusal.NONE:
            try:
                opened, renewed = planned(confirmed=True)
            except (NotFound, NotAllowed, NotSignedIn):
                raise
            except WioError:  # the hub cannot say: what mc said stands
                renewed = ()
            if len(renewed) == len(runs):
                runs = renewed  # without kept keys: the hub is not asked again
                known = ended.refusal is Refusal.SURE and lacking(line, opened) is None
                if known and repeatable(line, run, printed=ended.printed):
                    continue
                _explain(line, opened, ended, note)
                codes.append(ended.code)
                continue
        ended.held.release()
        codes.append(ended.code)
    return next((code for code in codes if code), 0)


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
