"""Nothing that the hub keeps or says opens storage."""

from __future__ import annotations

from pathlib import Path

from bench.rig import Rig, fetch_key
from protocol.grants import Permission


def everything_in(*places: Path) -> bytes:
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    return b"\0".join(file.read_bytes() for file in files)


def test_no_key_password_token_or_join_secret_lies_in_the_hubs_data_or_in_any_log(rig: Rig) -> None:
    federation = rig.federation
    rig.alice.create_workspace("sealed")
    rig.alice.share("sealed", "bob", Permission.WRITE)
    invitation = rig.alice.invite("canary")
    keys = [fetch_key(client, "alice/sealed")[0] for client in (rig.alice, rig.bob) for _ in range(3)]
    canaries = {
        "a secret key": [key.secret_key for key in keys],
        "a session token": [key.session_token for key in keys],
        "the server's own key": [rig.server.password],
        "a password": [federation.people["alice"].environment["WIO_PASSWORD"]],
        "a token": [federation.people["alice"].token, federation.people["bob"].token],
        "a join string": [invitation.join_string, invitation.join_string.split(".")[1][60:120]],
    }
    hub = everything_in(federation.hub.data, federation.hub.log)
    agent_log = everything_in(rig.agent.log)
    assert len(hub) > 50_000
    for what, secrets in canaries.items():
        for secret in secrets:
            assert secret.encode() not in hub, f"{what} lies with the hub"
            assert secret.encode() not in agent_log, f"{what} is in the agent's log"
    state = everything_in(rig.agent.state)
    for key in keys:
        assert key.secret_key.encode() not in state
        assert key.session_token.encode() not in state
