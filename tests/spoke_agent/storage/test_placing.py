from __future__ import annotations

import json
import re

import pytest

from protocol.errors import Internal
from spoke_agent.storage.joining import ADMIN_ACTIONS, agent_policy
from spoke_agent.storage.placing import Naming, audit_token, parent_key


def test_no_node_s_names_begin_with_another_node_s() -> None:
    nodes = ["lab", "lab3", "lab-3", "lab.x", "a", "ab"]
    for one in nodes:
        for other in nodes:
            found = Naming(one).holder(Naming(other).user("0123456789abcdef"))
            assert found == ("0123456789abcdef" if one == other else "")


def test_a_policy_s_name_tells_its_holder() -> None:
    naming = Naming("lab3")
    assert naming.holder(naming.policy("0123456789abcdef", 7)) == "0123456789abcdef"
    assert naming.holder("consoleAdmin") == ""


@pytest.mark.parametrize("name", ["", "short", "a--b--c-d", "with,comma", "with=sign", "a/b/c/d/e", "x" * 65, "ü" * 10])
def test_a_name_that_could_be_read_as_something_else_is_no_holder(name: str) -> None:
    with pytest.raises(Internal):
        Naming("lab3").user(name)


def test_secrets_depend_on_master_and_name_and_are_plain_to_every_tool() -> None:
    keys = [parent_key(master, user) for master in (b"m" * 32, b"n" * 32) for user in ("a", "b")]
    assert len({key.secret_key for key in keys}) == 4
    assert parent_key(b"m" * 32, "a") == keys[0]
    for key in keys:
        assert re.fullmatch(r"[A-Za-z0-9_-]{40}", key.secret_key)
    assert audit_token(b"m" * 32) not in {key.secret_key for key in keys}


def test_the_agent_s_own_policy_names_single_actions_only() -> None:
    policy = json.loads(agent_policy())
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in statement["Action"])
    assert not {"admin:Heal", "admin:ServiceRestart", "admin:ServiceStop"} & set(ADMIN_ACTIONS)
    (writing,) = [one for one in policy["Statement"] if "s3:PutObject" in one["Action"]]
    assert all(resource.startswith("arn:aws:s3:::wio-probe-") for resource in writing["Resource"])
