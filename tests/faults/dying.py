"""Start a program of the product that is to die at a named point: SIGKILL, as the machine does it, with nothing tidied up.

    python -m tests.faults.dying --at MODULE:QUALNAME[:before|after][:N] -- hub.cli serve
    python -m tests.faults.dying --ahead MODULE:QUALNAME:MICROSECONDS -- spoke_agent.cli run

The product has no hook for this. The named function is wrapped before anything else is imported, so that its N-th call
kills the process before it begins, or after it has returned (an async one: after it has been awaited; an async context
manager: after its block has ended well). ``--ahead``: the named clock says so much more than it would.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self

BEFORE: Final = "before"
AFTER: Final = "after"


@dataclass(frozen=True)
class Point:
    """Where to die."""

    module: str
    name: str
    when: str = BEFORE
    nth: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``MODULE:QUALNAME[:before|after][:N]``."""
        module, name, *rest = text.split(":")
        when = rest.pop(0) if rest and rest[0] in {BEFORE, AFTER} else BEFORE
        nth = int(rest.pop(0)) if rest else 1
        if rest or nth < 1:
            raise ValueError(f"{text} is not MODULE:QUALNAME[:before|after][:N]")
        return cls(module, name, when, nth)

    def __str__(self) -> str:
        return f"{self.module}:{self.name}:{self.when}:{self.nth}"


class _Count:
    """Counts calls, from whatever thread, and ends the process at the one that was asked for."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self._lock = threading.Lock()

    def take(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                die()


def die() -> NoReturn:
    """End this process here and now."""
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError  # pragma: no cover - there is nobody left to raise it


def plant(point: Point) -> None:
    """Wrap the named function. Raises AttributeError or ImportError where the product has none of that name."""
    _replace(point.module, point.name, lambda function: wrap(function, point))


def put_ahead(text: str) -> None:
    """Put a clock ahead: ``MODULE:QUALNAME:MICROSECONDS``."""
    module, name, much = text.split(":")

    def moved(clock: Callable[..., int]) -> Callable[..., int]:
        return functools.wraps(clock)(lambda *arguments: clock(*arguments) + int(much))

    _replace(module, name, moved)


def _replace(module: str, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    *path, last = name.split(".")
    holder: Any = importlib.import_module(module)
    for part in path:
        holder = getattr(holder, part)
    raw = inspect.getattr_static(holder, last)
    kind = type(raw) if isinstance(raw, staticmethod | classmethod) else None
    made = make(raw.__func__ if kind is not None else raw)
    setattr(holder, last, made if kind is None else kind(made))


def wrap(function: Callable[..., Any], point: Point) -> Callable[..., Any]:
    """Return the function, except that its n-th call is the process's last."""
    count = _Count(point.nth)
    before, after = point.when == BEFORE, point.when == AFTER

    def maybe(now: bool) -> None:
        if now:
            count.take()

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*arguments: Any, **options: Any) -> Any:
            maybe(before)
            result = await function(*arguments, **options)
            maybe(after)
            return result

        return awaited
    inner = getattr(function, "__wrapped__", None)
    if inner is not None and inspect.isasyncgenfunction(inner):

        @asynccontextmanager
        async def block(*arguments: Any, **options: Any) -> Any:
            maybe(before)
            async with function(*arguments, **options) as value:
                yield value
            maybe(after)

        return functools.wraps(function)(block)

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        maybe(before)
        result = function(*arguments, **options)
        maybe(after)
        return result

    return called


def main(arguments: Sequence[str]) -> None:
    """Plant every ``--at``, then run the program behind ``--``: a module with a ``main`` that reads the command line."""
    split = list(arguments).index("--")
    options, (module, *rest) = arguments[:split], list(arguments[split + 1 :])
    for flag, text in zip(options[::2], options[1::2], strict=True):
        match flag:
            case "--at":
                plant(Point.parse(text))
            case "--ahead":
                put_ahead(text)
            case _:
                raise SystemExit(f"unknown option {flag}")
    sys.argv = [module, *rest]
    importlib.import_module(module).main()


if __name__ == "__main__":
    main(sys.argv[1:])
