"""The ``wio`` command. Each module here holds the commands of one matter; what is slow to load is loaded when needed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Never

import typer
from typer.core import TyperGroup

from protocol.errors import BadInput, BadSetting, Internal, WioError
from wio.cli import (
    accounts,
    auditing,
    checking,
    completing,
    copying,
    files,
    finding,
    groups,
    keys,
    links,
    manual,
    nodes,
    output,
    quotas,
    requests,
    roots,
    serving,
    sharing,
    tools,
    transfers,
    vouching,
    watching,
    why,
    workspaces,
)
from wio.cli.quick import quicken

__all__ = ["app", "main"]


class _Command(TyperGroup):
    """The whole command: errors of the tree become a sentence and their exit code; nothing else gets out."""

    _as_json = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        quicken(self)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run; wrong use exits with 2, Ctrl-C with 130, as typer has it."""
        given = sys.argv[1:] if args is None else list(args)
        self._as_json = "--json" in given
        return super().main(given, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.TyperException, BrokenPipeError):  # typer's own way of ending
            raise
        except typer.Abort as error:  # Ctrl-C or Ctrl-D at a prompt
            raise typer.Exit(130) from error
        except WioError as error:
            self._end(error, error)
        except UnicodeEncodeError as error:
            self._end(BadInput("An argument is not valid Unicode."), error)
        except OSError as error:
            where = error.filename or "a file or connection of this machine"
            self._end(BadSetting(f"{where} cannot be used: {error.strerror or error}."), error)
        except Exception as error:
            if os.environ.get("WIO_DEBUG"):
                raise
            todo = "Please report it; WIO_DEBUG=1 shows where."
            self._end(Internal(f"wio met a fault of its own: {type(error).__name__}: {error}.", todo=todo), error)

    def _end(self, error: WioError, cause: Exception) -> Never:
        output.failure(error, as_json=self._as_json)
        raise typer.Exit(error.exit_code) from cause


app = typer.Typer(
    name="wio",
    cls=_Command,
    help="Find, read, share and write data on everybody's own storage servers. A path is workspace/… or owner/workspace/…",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
accounts.add_to(app)
workspaces.add_to(app)
sharing.add_to(app)
groups.add_to(app)
requests.add_to(app)
why.add_to(app)
finding.add_to(app)
watching.add_to(app)
files.add_to(app)
transfers.add_to(app)
copying.add_to(app)
keys.add_to(app)
links.add_to(app)
serving.add_to(app)
tools.add_to(app)
vouching.add_to(app)
nodes.add_to(app)
roots.add_to(app)
quotas.add_to(app)
auditing.add_to(app)
checking.add_to(app)
completing.add_to(app)
manual.add_to(app)


def main() -> None:
    """Run the command; the entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 is no reason to fail
    program = completing.ready(app) if completing.ASKED in os.environ else app
    program()
