"""The agent's figures in Prometheus' text form, for a textfile collector: what ``wio-agent status`` knows. Pure."""

from __future__ import annotations

from typing import Final

from spoke_agent.owner import Status

_MICRO: Final = 1_000_000


def text(status: Status, now: int) -> str:
    """Return them; ``now`` in Unix microseconds. A root that was never scanned has no age."""
    lines: list[str] = []

    def gauge(name: str, about: str, values: list[tuple[str, float]]) -> None:
        if values:
            lines.extend((f"# HELP wio_agent_{name} {about}", f"# TYPE wio_agent_{name} gauge"))
            lines.extend(f"wio_agent_{name}{labels} {value:g}" for labels, value in values)

    gauge("up", "Whether an agent runs", [("", status.pid > 0)])
    gauge("connected", "Whether it is connected to its hub", [("", status.connected_since is not None)])
    gauge("storage_ready", "Whether the storage server was reached", [("", status.storage_ready)])
    gauge("paused", "Whether its owner has cut everybody off", [("", status.paused)])
    gauge("pending_rows", "Journal rows the hub does not have yet", [("", status.pending_rows)])
    gauge("dirty", "Places not yet looked at", [("", status.dirty)])
    gauge("keys_out", "Keys that are out", [("", status.keys_out)])
    gauge("warnings", "Warnings that stand", [("", len(status.warnings))])
    roots = [(f'{{root="{_label(root.name)}"}}', root) for root in status.roots]
    gauge("root_objects", "Objects known", [(label, root.objects) for label, root in roots])
    gauge("root_bytes", "Bytes known", [(label, root.bytes) for label, root in roots])
    gauge("root_scanning", "Whether a scan is due or runs", [(label, root.scanning) for label, root in roots])
    gauge("root_failing", "Whether its last scan failed", [(label, root.problem is not None) for label, root in roots])
    gauge(
        "root_age_seconds",
        "Since the last completed scan began",
        [(label, max(now - root.scanned_at, 0) / _MICRO) for label, root in roots if root.scanned_at is not None],
    )
    return "\n".join(lines) + "\n"


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
