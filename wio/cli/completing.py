"""``wio completion``: what bash, zsh and fish need to complete commands, options, workspaces, people and paths."""

from __future__ import annotations

import typer


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
