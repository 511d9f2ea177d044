"""``wio mc``: the real mc with workspace names in; everything after it is mc's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from protocol.errors import BadInput, BadLifetime, OverCeiling
from wio.cli import here, output, watching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wio.credentials import Keys, Opening

_PANEL: Final = "Files"


def add_to(app: typer.Typer) -> None:
    """Register the command. Options after mc's command are mc's, --help and --json included."""
    settings = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}
    app.command("mc", rich_help_panel=_PANEL, context_settings=settings)(mc)


def mc(
    ctx: typer.Context,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND PATH…", help="mc's command and arguments.", show_default=False)
    ] = None,
) -> None:
    """Run mc's ls, cp, mv, rm, cat, head, diff, tree, mirror, find, stat, du, watch, pipe with workspace paths.

    A path is workspace/…, owner/workspace/…, or node:workspace/…. A local file is ./file, ../file, /file, or, for cp, mv,
    mirror, cat, head and diff, a bare word. Options are mc's own; wio mc cp --help shows them, and --json is mc's, too.
    """
    from wio import mc as line  # noqa: PLC0415  - brings cryptography, which help does without
    from wio import mc_run  # noqa: PLC0415

    given = arguments or []
    if not given or given[0] in {"-h", "--help"}:
        output.line(ctx.get_help().rstrip())
        return
    if line.wants_help(given):
        raise typer.Exit(mc_run.run_help(given))
    if given[0] == "watch":
        asked = line.read(given)
        if len(asked.words) > 1:
            raise BadInput("wio mc watch watches one path at a time.", todo="wio watch shows all that changes.")
        with here.session() as session:
            watching.mc_watch(session.client, asked.options, asked.words[0].text)
        return
    with here.session() as session:
        keys = session.keys

        def open_paths(paths: Sequence[str], *, long: bool, confirmed: bool) -> Sequence[Opening]:
            return _open(keys, paths, long=long, confirmed=confirmed)

        code = mc_run.run_mc(given, open_paths, note=output.note)
    raise typer.Exit(code)


def _open(keys: Keys, paths: Sequence[str], *, long: bool, confirmed: bool) -> Sequence[Opening]:
    from wio.credentials import LONG_LIFE_S, Wish  # noqa: PLC0415  - brings cryptography, which help does without

    if long:
        try:
            return keys.open(paths, Wish(life_s=LONG_LIFE_S), confirmed=confirmed)
        except (BadLifetime, OverCeiling):
            output.note("A key that lasts for a long copy is not to be had here; using a usual one.")
    return keys.open(paths, confirmed=confirmed)
