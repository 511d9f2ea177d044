"""``GET /metrics``: shut without a token, and figures that move with what the hub does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

TOKEN = "a-token-for-prometheus"


def values(text: str) -> dict[tuple[str, str], float]:
    """Return every sample by its name and its labels' values."""
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_without_a_token_in_the_settings_nobody_gets_metrics(hub: Any) -> None:
    async with httpx.AsyncClient(base_url=hub.url, trust_env=False) as client:
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/metrics", headers={"Authorization": "Bearer None"})).status_code == 404


async def test_metrics_say_how_much_and_never_what(tmp_path: Path, running: Any, joined: Any) -> None:
    async with running(tmp_path / "hub", WIO_METRICS_TOKEN=TOKEN) as hub:
        alice = await hub.register("alice")
        async with joined(hub, alice, "lab3"):
            async with httpx.AsyncClient(base_url=hub.url, trust_env=False) as client:
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, alice):
                    assert (await client.get("/metrics", headers=headers)).status_code == 401
                right = {"Authorization": f"Bearer {TOKEN}"}
                before = values((await client.get("/metrics", headers=right)).text)
                assert (await hub.http.get("/search?q=secretword", headers=alice)).status_code == 200
                answer = await client.get("/metrics", headers=right)
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            after = values(answer.text)
            searches = ("wio_search_seconds_count", "")
            assert after[searches] == before[searches] + 1
            assert after["wio_nodes", "online"] == 1
            assert after["wio_node_age_seconds", "lab3"] < 60
            assert after["wio_index_behind", ""] == 0
            assert not any(word in answer.text for word in ("alice", "secretword", TOKEN))
