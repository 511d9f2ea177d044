"""``wio root survey``, ``wio root create --dry-run`` and ``wio node verify``: counting and comparing from nothing.

They wait for as long as it takes to list a root; Ctrl-C ends the work on the hub and on the node as well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from protocol.api import Count, NewRoot, SurveyResult, Total, Verification
from protocol.errors import Pending
from wio.cli import here, output
from wio.cli.output import Column, Json
from wio.cli.words import count, root_address, safe, size, span

Address = Annotated[str, typer.Argument(metavar="NODE/ROOT", help="The root.", show_default=False)]
DIFFERENT: Final = 1
_SAMPLES: Final = 5
_KINDS: Final = {"unknown": "in storage, not known", "gone": "known, not in storage", "other": "known otherwise"}


def survey(address: Address, json: Json = False) -> None:
    """Count what an import of a root would bring: files, sizes, kinds, odd names, and how long it takes. Changes nothing."""
    node, name = root_address(address)
    with here.session() as session, _patience(f"{address} is being counted"):
        found = session.client.survey_root(node, name)
    show_survey(found, as_json=json)


def dry_run(new: NewRoot, *, as_json: bool) -> None:
    """Count what an import would bring where a root would be made."""
    with here.session() as session, _patience(f"{new.bucket}/{new.prefix} is being counted"):
        found = session.client.survey_node(new.node, new)
    show_survey(found, as_json=as_json)


def verify(address: Address, json: Json = False) -> None:
    """Compare storage, the node's knowledge and the hub's catalogue, each added up from nothing.

    Ends with 0 where all are equal, 1 where something differs, 6 where files changed all the time, so that it cannot be said.
    """
    node, name = root_address(address)
    with here.session() as session, _patience(f"{address} is being compared"):
        found = session.client.verify_root(node, name)
    if json:
        output.value(found)
    else:
        _show(found)
    if not found.equal:
        raise typer.Exit(Pending.exit_code if found.busy else DIFFERENT)


def show_survey(found: SurveyResult, *, as_json: bool) -> None:
    """Print a survey."""
    if as_json:
        output.value(found)
        return
    output.line(
        f"{count(found.objects, 'file')}, {size(found.bytes)}, listed in {span(found.took_s)}; "
        f"an import takes about {span(max(found.estimate_s, 1.0))}. Nothing was changed."
    )
    if found.extensions:
        output.line()
        rows = [(one.what or "(none)", f"{one.objects:,}", size(one.bytes)) for one in found.extensions]
        output.table([Column("extension"), Column("files", right=True), Column("size", right=True)], rows)
    if found.odd:
        output.line()
        output.table(
            [Column("odd"), Column("files", right=True), Column("such as", fold=True)],
            [(one.what, f"{one.objects:,}", _samples(one)) for one in found.odd],
        )


def _show(found: Verification) -> None:
    verdict = "equal" if found.equal else "busy" if found.busy else "DIFFERENT"
    output.line(f"{safe(found.root)}: {verdict}, in {span(max(found.took_s, 0.0))}.")
    sides = (
        ("storage", found.storage),
        ("node", found.node),
        ("catalogue", found.catalogue),
        ("catalogue as kept", found.kept),
    )
    output.table(
        [Column(""), Column("files", right=True), Column("bytes", right=True), Column("digest")],
        [(name, *_total(total)) for name, total in sides],
    )
    if found.differences:
        output.line()
        output.table(
            [Column("differs"), Column("files", right=True), Column("such as", fold=True)],
            [(_KINDS.get(one.what, one.what), f"{one.objects:,}", _samples(one)) for one in found.differences],
        )
    if found.busy:
        output.note("Files change all the time there, so this cannot be said for one moment. Nothing was found that differs.")
    elif not found.equal:
        output.note(f"The next scan looks into it and repairs it: wio root scan {safe(found.root)}")


def _total(total: Total) -> Sequence[str]:
    return f"{total.objects:,}", f"{total.bytes:,}", total.digest


def _samples(one: Count) -> str:
    return ", ".join(one.samples[:_SAMPLES])


@contextmanager
def _patience(what: str) -> Iterator[None]:
    """Say that it takes its time, where somebody looks."""
    if sys.stderr.isatty():
        output.note(f"{safe(what)} …")
    yield
