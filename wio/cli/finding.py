"""``wio find``: search everything one may read."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from protocol.api import FacetCount, Hit, SearchPage
from wio.cli import here, output
from wio.cli.output import Column, Json
from wio.cli.words import count, day, safe, size, view

_PANEL: Final = "Files"
_PAGE: Final = 200
FACETS: Final = ("owner", "ext", "type", "node")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=_PANEL)(find)


def find(
    query: Annotated[
        list[str],
        typer.Argument(
            help="Words and fields: scan ext:nii type:image image.width>4000 size>1G modified:<2024 owner:bob in:alice/scans"
        ),
    ],
    facets: Annotated[bool, typer.Option("--facets", help="Count by owner, extension, type and node, too.")] = False,
    sort: Annotated[
        str | None,
        typer.Option("--sort", help="relevance, newest, oldest, largest, smallest or path.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show so many at most.")] = 50,
    json: Json = False,
) -> None:
    """Search by name, size, time, place and what was read out of files. Put -- before a query that begins with a minus."""
    text = " ".join(query)
    asked = FACETS if facets else ()
    with here.session() as session:
        page = session.client.search(text, sort=sort, limit=min(limit, _PAGE), facets=asked)
        hits, first = list(page.hits), page
        while page.cursor is not None and page.hits and len(hits) < limit:
            page = session.client.search(text, sort=sort, limit=min(limit - len(hits), _PAGE), cursor=page.cursor)
            hits += page.hits
    whole = SearchPage(tuple(hits), first.total, first.bytes, first.facets, page.cursor, page.nodes, first.took_ms)
    if json:
        output.value(whole)
        return
    columns = [Column("size", right=True), Column("modified"), Column("path", fold=True), Column("node")]
    if hits:
        output.table(columns, [_hit(hit) for hit in hits], head=False)
    output.line("   ".join(_foot(whole)))


def _hit(hit: Hit) -> tuple[str, str, str, str]:
    return size(hit.size), day(hit.modified_at), hit.path, hit.node


def _foot(page: SearchPage) -> list[str]:
    """Return what stands below the hits: how many of how many, facets, and how old the view of each node is."""
    found = f"{len(page.hits):,} of {count(page.total, 'file')}, {size(page.bytes)}."
    parts = [found if page.hits or page.total else "Nothing found."]
    parts += [f"by {safe(name)}: {_facet(values)}." for name, values in page.facets.items() if values]
    if page.nodes:
        parts.append(" · ".join(view(node) for node in page.nodes))
    return parts


def _facet(values: tuple[FacetCount, ...]) -> str:
    return ", ".join(f"{safe(one.value) or 'none'} {one.count:,}" for one in values)
