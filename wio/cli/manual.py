"""``wio man``: the manual pages, made from the commands themselves, so that they cannot say anything else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from protocol.errors import UnknownPath
from protocol.names import shown
from wio.cli import output
from wio.cli.output import Json

if TYPE_CHECKING:
    from wio.manual import Page

_PANEL: Final = "You"


def add_to(app: typer.Typer) -> None:
    """Register the command."""

    @app.command(rich_help_panel=_PANEL)
    def man(
        ctx: typer.Context,
        command: Annotated[
            list[str] | None, typer.Argument(metavar="[COMMAND…]", help="A command, as in: wio man node ls.")
        ] = None,
        to: Annotated[
            Path | None,
            typer.Option("--to", metavar="DIR", help="Write all pages there instead: wio.1, wio-share.1 …", show_default=False),
        ] = None,
        json: Json = False,
    ) -> None:
        """Print a manual page: wio man share | man -l -. Or write them all."""
        from wio.manual import EXAMPLES, pages  # noqa: PLC0415  - only this needs them

        root: Any = ctx.find_root().command
        made = {page.name: page for page in pages(root, "wio", EXAMPLES)}
        if to is not None:
            _write(made, to, json=json)
            return
        name = "-".join(["wio", *(command or [])])
        if name not in made:
            raise UnknownPath(f"There is no command {shown(' '.join(command or []))}.", todo="wio --help lists them.")
        output.value(made[name]) if json else output.line(made[name].roff.rstrip("\n"))


def _write(made: dict[str, Page], to: Path, *, json: bool) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for page in made.values():
        (to / f"{page.name}.1").write_text(page.roff, encoding="utf-8")
    if json:
        output.value(sorted(made))
    else:
        output.line(f"{len(made)} pages are in {to}.")
