"""The agent's figures as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from protocol.errors import RootMissing
from spoke_agent.metrics import text
from spoke_agent.owner import RootStatus, Status

NOW = 1_800_000_000_000_000


def test_prometheus_reads_what_status_knows() -> None:
    roots = (
        RootStatus("main", "lab/", "names", 5, 60, 0, NOW - 30_000_000, False, 0, 0, None),
        RootStatus('odd"\\', "lab/", "names", 0, 0, 0, None, True, 0, 0, RootMissing("It is gone.").problem),
    )
    status = Status("lab3", 1, "h", "s", 7, NOW, None, False, False, True, 4, 3, 2, ("one",), roots)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text(status, NOW))
        for sample in family.samples
    }
    assert found["wio_agent_up",] == found["wio_agent_connected",] == found["wio_agent_storage_ready",] == 1
    assert (found["wio_agent_pending_rows",], found["wio_agent_dirty",], found["wio_agent_keys_out",]) == (4, 3, 2)
    assert found["wio_agent_root_age_seconds", "main"] == 30
    assert ("wio_agent_root_age_seconds", 'odd"\\') not in found
    assert found["wio_agent_root_failing", 'odd"\\'] == found["wio_agent_root_scanning", 'odd"\\'] == 1
