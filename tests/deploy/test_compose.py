"""The files that run wio in containers and as services, held against what the programs really read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.settings import SETTINGS, read_settings

_TOP = Path(__file__).parents[2]
_HUB = _TOP / "docker-compose.hub.yml"
_SPOKE = _TOP / "docker-compose.spoke.yml"
_DOCKERFILES = sorted((_TOP / "deploy").glob("*.Dockerfile"))
_UNITS = sorted((_TOP / "deploy").glob("*.service"))
_HUB_NAMES = {setting.name for setting in SETTINGS}
_OURS = re.compile(r"\b(?:WIO_[A-Z0-9_]+|WEB_CONCURRENCY)\b")
_REFERENCE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def _agent_names() -> set[str]:
    """Every variable that the agent's source names as text of its own."""
    sources = (_TOP / "spoke_agent").rglob("*.py")
    return {name for source in sources for name in re.findall(r"[\"'](WIO_[A-Z0-9_]+)[\"']", source.read_text())}


def _services(path: Path) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["services"]
    return services


def _filled(text: str, given: dict[str, str]) -> str:
    """Do with ``${NAME:-default}`` and ``${NAME:?message}`` what compose does."""

    def fill(found: re.Match[str]) -> str:
        name, mark, rest = found.groups()
        if given.get(name):
            return given[name]
        if mark == "-":
            return str(rest)
        raise KeyError(name)

    return _REFERENCE.sub(fill, text)


@pytest.mark.parametrize("path", [_HUB, _SPOKE], ids=lambda path: path.name)
def test_what_a_compose_file_builds_and_mounts_is_there(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    volumes = set(document["volumes"])
    used = set()
    for service in document["services"].values():
        if "build" in service:
            assert (_TOP / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        else:
            assert service["image"]
        used |= {re.split(r":(?=/)", _filled(mount, {}))[0] for mount in service.get("volumes", [])}
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            assert document["services"][other]["healthcheck"]["test"]
    assert used == volumes


def test_the_hub_gets_only_variables_that_it_reads() -> None:
    environment = _services(_HUB)["hub"]["environment"]
    assert set(environment) <= _HUB_NAMES


def test_the_hub_starts_with_the_settings_of_its_compose_file() -> None:
    given = {"WIO_SECRET": "0" * 64, "POSTGRES_PASSWORD": "f" * 32}
    services = _services(_HUB)
    environment = {name: _filled(value, given) for name, value in services["hub"]["environment"].items()}
    image = dict(re.findall(r"\b(WIO_[A-Z0-9_]+)=(\S+)", (_TOP / "deploy" / "hub.Dockerfile").read_text()))
    settings = read_settings(image | environment)
    postgres = {name: _filled(value, given) for name, value in services["postgres"]["environment"].items()}
    assert settings.database_url == (
        f"postgresql+asyncpg://{postgres['POSTGRES_USER']}:{postgres['POSTGRES_PASSWORD']}@postgres/{postgres['POSTGRES_DB']}"
    )
    assert settings.host == "0.0.0.0"  # noqa: S104 - inside its container
    assert services["hub"]["ports"] == [f"127.0.0.1:8000:{settings.port}"]
    assert services["hub"]["volumes"] == [f"hub:{settings.data}"]


@pytest.mark.parametrize("name", ["WIO_SECRET", "POSTGRES_PASSWORD"])
def test_the_hub_does_not_start_without_secrets_of_its_own(name: str) -> None:
    given = {"WIO_SECRET": "0" * 64, "POSTGRES_PASSWORD": "f" * 32}
    del given[name]
    with pytest.raises(KeyError, match=name):
        _filled(" ".join(_services(_HUB)["hub"]["environment"].values()), given)


def test_the_agent_gets_only_variables_that_it_reads() -> None:
    environment = _services(_SPOKE)["agent"]["environment"]
    assert set(environment) <= _agent_names()


@pytest.mark.parametrize("path", [_HUB, _SPOKE, *_DOCKERFILES, *_UNITS], ids=lambda path: path.name)
def test_no_file_names_a_variable_that_nothing_reads(path: Path) -> None:
    named = set(_OURS.findall(path.read_text()))
    assert named <= (_agent_names() if "agent" in path.name or path == _SPOKE else _HUB_NAMES)


@pytest.mark.parametrize("path", [*_DOCKERFILES, *_UNITS], ids=lambda path: path.name)
def test_every_program_that_is_started_is_one_that_is_installed(path: Path) -> None:
    scripts = tomllib.loads((_TOP / "pyproject.toml").read_text())["project"]["scripts"]
    started = set(re.findall(r"(?:ENTRYPOINT \[\"|ExecStart=/opt/wio/bin/)([\w-]+)", path.read_text()))
    assert len(started) == 1
    assert started <= set(scripts)
    extra = re.search(r"\.\[(\w+)\]|workspacesio\[(\w+)\]", path.read_text())
    assert extra is not None
    assert path.name.removeprefix("wio-").startswith(extra[1] or extra[2])


@pytest.mark.parametrize("path", _UNITS, ids=lambda path: path.name)
def test_a_unit_has_no_right_that_it_does_not_need(path: Path) -> None:
    text = path.read_text()
    for line in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "CapabilityBoundingSet=",
        "StateDirectoryMode=0700",
    ):
        assert f"\n{line}\n" in text


def test_no_container_runs_as_root() -> None:
    assert len(_DOCKERFILES) == 2
    for path in _DOCKERFILES:
        assert re.search(r"^USER wio$", path.read_text(), flags=re.MULTILINE), path.name
