"""``wio mc``, the doing: finds the real ``mc``, starts it with keys in its environment, passes on what it prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from protocol.errors import BadSetting
from protocol.names import shown
from wio.credentials import Opening
from wio.mc import Run, harmless, plan, read, renamed


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


class Runner:
    """Starts mc, with keys in its environment, and passes on what it prints."""

    def __init__(self, program: str, *, environment: Mapping[str, str], out: IO[bytes], err: IO[bytes], terminal: bool) -> None:
        self._program = program
        self._environment = environment
        self._out = out
        self._err = err
        self._terminal = terminal

    def run(self, run: Run) -> int:
        """Run mc once and return its exit code; 130 if it was interrupted."""
        direct = run.shape.raw or (run.shape.progress and self._terminal)
        process = subprocess.Popen(  # noqa: S603  - the program a person chose, with arguments and no shell
            [self._program, *run.arguments],
            env={**self._environment, **run.environment},
            stdout=None if direct else subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        end_of_head = threading.Event()
        pumps = [threading.Thread(target=self._pump, args=(process.stderr, self._err, run, end_of_head))]
        if not direct:
            pumps.append(threading.Thread(target=self._pump, args=(process.stdout, self._out, run, end_of_head)))
        for pump in pumps:
            pump.start()
        code = _wait(process)
        for pump in pumps:
            pump.join()
        return 0 if code == 1 and end_of_head.is_set() else code

    def _pump(self, source: IO[bytes], sink: IO[bytes], run: Run, end_of_head: threading.Event) -> None:
        with source:
            for line in source:
                if run.arguments[0] == "head" and sink is self._err and line.rstrip().endswith(b"`. EOF."):
                    end_of_head.set()
                    continue
                said = renamed(line, run.names)
                try:
                    sink.write(harmless(said) if sink.isatty() else said)
                    sink.flush()
                except BrokenPipeError:
                    return  # closing our end tells mc


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
    open_paths: Callable[[Sequence[str], bool], Sequence[Opening]],
    *,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Do what stands after ``wio mc`` and return the exit code: mc's own, the first that is not 0 where it ran twice.

    ``open_paths(paths, long)`` opens the paths; ``long`` asks for keys that last a long copy.
    """
    environment = os.environ if environment is None else environment
    line = read(arguments)
    program = find_mc(environment)
    opened = dict(zip(line.paths, open_paths(line.paths, line.lasting), strict=True))
    runner = Runner(
        program,
        environment=environment,
        out=sys.stdout.buffer,
        err=sys.stderr.buffer,
        terminal=sys.stdout.isatty(),
    )
    codes = [runner.run(run) for run in plan(line, opened)]
    return next((code for code in codes if code), 0)


def run_help(arguments: Sequence[str]) -> int:
    """Show mc's own help for one of its commands."""
    return subprocess.run([find_mc(), *arguments], check=False).returncode  # noqa: S603  - the program a person chose
