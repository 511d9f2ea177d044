"""Lets a command start without pydantic, which typer loads to check its arguments and which takes half of the time.

Nearly every argument is a text that stays as it is, a flag, or a default. Those pass here; whatever else there is (numbers,
choices) goes to typer's own check. This leans on a method that typer does not promise: without it commands are slower, and
nothing else. A test says when that happens.
"""

from __future__ import annotations

import enum
from typing import Any, Final

_CHECK: Final = "get_runtime_param"


class _Check:
    """Stands before typer's own check of one parameter."""

    def __init__(self, descriptor: Any, own: Any) -> None:
        self._annotation = descriptor.annotation
        self._parsed = descriptor.parameter_info.parser is not None
        self._own = own

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of a parameter, checked."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if not self._parsed and (_right(self._annotation, value) or (value is param.default and type(value) is int)):
            return list(value) if self._annotation == list[str] else value
        return self._own().coerce(value, param=param, ctx=ctx)


def _right(annotation: Any, value: Any) -> bool:
    """Say whether a value needs no check: a text, texts, or a member of its enumeration already."""
    if annotation is str or annotation is bool:
        return type(value) is annotation
    if annotation == list[str]:
        return isinstance(value, list | tuple) and all(type(one) is str for one in value)
    return isinstance(annotation, type) and issubclass(annotation, enum.Enum) and type(value) is annotation


def quicken(command: Any) -> None:
    """Put the quick check before typer's own in a command and all below it."""
    own_params = command.get_params

    def get_params(ctx: Any) -> Any:
        params = own_params(ctx)
        for param in params:
            own = getattr(param, _CHECK, None)
            if own is not None and _CHECK not in vars(param):
                check = _Check(param.type_descriptor, own)
                setattr(param, _CHECK, lambda check=check: check)
        return params

    command.get_params = get_params
    for below in getattr(command, "commands", {}).values():
        quicken(below)
