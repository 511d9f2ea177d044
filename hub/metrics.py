"""Figures for whoever runs a hub, in Prometheus' own form. Counted as things happen; what only stands is set when asked.

No name of a person, a workspace or a file is in any of them: whoever reads metrics sees how much, not what. Node names are.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from protocol.grants import Receipt

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ENFORCING: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0, 3600.0, 86400.0)


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._searches = Histogram("wio_search_seconds", "How long searches took in the hub", buckets=_QUICK, registry=registry)
        self._keys = Counter("wio_keys_minted", "Keys that were minted on people's demand", registry=registry)
        self._receipts = Counter("wio_receipts", "Changes of access that were sent to nodes", ["state"], registry=registry)
        self._enforced = Histogram(
            "wio_enforcement_seconds",
            "From the wish to change somebody's access to its enforcement by the storage server",
            buckets=_ENFORCING,
            registry=registry,
        )
        self._rows = Counter("wio_rows_applied", "Journal rows of nodes taken into the catalogue", registry=registry)
        self._nodes = Gauge("wio_nodes", "Nodes that joined, by whether their agent is connected", ["state"], registry=registry)
        self._age = Gauge(
            "wio_node_age_seconds",
            "Since the node last said that everything it knows is in the catalogue",
            ["node"],
            registry=registry,
        )
        self._pending = Gauge("wio_node_pending_rows", "Journal rows the node has not sent yet", ["node"], registry=registry)
        self._dirty = Gauge("wio_node_dirty", "Places the node has not looked at yet", ["node"], registry=registry)
        self._alarms = Gauge("wio_alarms", "Alarms that stand", ["kind"], registry=registry)
        self._waiting = Gauge("wio_ingest_waiting", "Batches of rows that wait for the database", registry=registry)
        self._lag = Gauge("wio_ingest_lag_seconds", "How long the oldest batch of rows has waited", registry=registry)
        self._index = Gauge(
            "wio_index_behind", "Changes of the catalogue that the search index does not have yet", registry=registry
        )

    # -------------------------------------------------------------------------------------------------- as it happens

    def searched(self, seconds: float) -> None:
        """Count a search."""
        self._searches.observe(seconds)

    def minted(self, keys: int) -> None:
        """Count keys."""
        self._keys.inc(keys)

    def receipt(self, receipt: Receipt) -> None:
        """Count what a node made of a change of access."""
        self._receipts.labels(receipt.state.value).inc()
        if receipt.enforced_at is not None:
            self._enforced.observe(max(receipt.enforced_at - receipt.asked_at, 0) / 1_000_000)

    def applied(self, rows: int) -> None:
        """Count rows taken into the catalogue."""
        self._rows.inc(rows)

    # -------------------------------------------------------------------------------------------------- as it stands

    def nodes(self, *, online: int, offline: int) -> None:
        """Set how many nodes there are, and forget what each of them was like."""
        self._nodes.labels("online").set(online)
        self._nodes.labels("offline").set(offline)
        for gauge in (self._age, self._pending, self._dirty):
            gauge.clear()

    def node(self, name: str, *, age_s: float | None, pending: int, dirty: int) -> None:
        """Set how fresh one node is; one that never was has no age."""
        if age_s is not None:
            self._age.labels(name).set(age_s)
        self._pending.labels(name).set(pending)
        self._dirty.labels(name).set(dirty)

    def alarms(self, kinds: dict[str, int]) -> None:
        """Set how many alarms of each kind stand."""
        self._alarms.clear()
        for kind, count in kinds.items():
            self._alarms.labels(kind).set(count)

    def queues(self, *, waiting: int, lag_s: float, index: int) -> None:
        """Set what waits inside the hub."""
        self._waiting.set(waiting)
        self._lag.set(lag_s)
        self._index.set(index)

    def text(self) -> bytes:
        """Return everything in Prometheus' text form."""
        return generate_latest(self._registry)
