"""Asking a person at a terminal before something that cannot be taken back by another command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from protocol.errors import BadInput


def confirm(question: str, what: str, *, yes: bool) -> None:
    """Go on if ``yes`` was given or the person agrees; else end like Ctrl-C.

    Raises BadInput, in which ``what`` is the deed (``Removing node lab3``), where there is no terminal to ask on.
    """
    if yes:
        return
    if not terminal():
        raise BadInput(f"{what} has to be confirmed.", todo="Add --yes.")
    typer.confirm(question, abort=True, err=True)


def terminal() -> bool:
    """Say whether there is somebody to ask."""
    return sys.stdin.isatty()


def choose(question: str, words: Sequence[str]) -> str:
    """Ask which of these words, until it is one of them or the beginning of one; the first is what Enter means."""
    while True:
        said = str(typer.prompt(f"{question} [{'/'.join(words)}]", default=words[0], err=True)).strip().lower()
        found = [word for word in words if said and word.startswith(said)]
        if len(found) == 1:
            return found[0]
