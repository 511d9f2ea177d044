from __future__ import annotations

import re
from pathlib import Path

import pytest

from hub.settings import SETTINGS, LogForm, Registration, misspelt, read_settings, tell_settings
from protocol.errors import BadSetting

_DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
_SECRET = "0123456789abcdef0123456789abcdef"


def test_a_hub_needs_no_settings() -> None:
    settings = read_settings({})
    assert settings.data.is_absolute()
    assert (settings.host, settings.port, settings.secret) == ("127.0.0.1", 8000, None)
    assert settings.database_url == f"sqlite+aiosqlite:///{settings.data}/hub.sqlite"
    assert settings.registration is Registration.OPEN
    assert settings.log_form is LogForm.PLAIN
    assert settings.proxy_hops == 0
    assert settings.address(41234) == "http://127.0.0.1:41234"


def test_an_empty_variable_counts_as_not_set() -> None:
    names = {setting.name: " " for setting in SETTINGS}
    assert read_settings(names) == read_settings({})


def test_the_command_line_wins_over_the_environment(tmp_path: Path) -> None:
    settings = read_settings({"WIO_PORT": "1", "WIO_HOST": "10.0.0.1", "WIO_DATA": "/nowhere"}, port="0", data=str(tmp_path))
    assert (settings.port, settings.host, settings.data) == (0, "10.0.0.1", tmp_path)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@db/wio", "postgresql+asyncpg://u:p@db/wio"),
        ("postgresql://u:p@db:5433/wio", "postgresql+asyncpg://u:p@db:5433/wio"),
        ("postgresql://u:p%40@db/wio?sslmode=require", "postgresql+asyncpg://u:p%40@db/wio?ssl=require"),
        ("sqlite:////var/lib/wio/hub.sqlite", "sqlite+aiosqlite:////var/lib/wio/hub.sqlite"),
        ("sqlite+aiosqlite:///rel.sqlite", "sqlite+aiosqlite:///rel.sqlite"),
    ],
)
def test_database_urls_are_understood_as_people_write_them(given: str, used: str) -> None:
    assert read_settings({"WIO_DATABASE_URL": given}).database_url == used


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://hub.example.org/", "https://hub.example.org"),
        ("hub.example.org", "https://hub.example.org"),
        ("http://10.0.0.5:8000", "http://10.0.0.5:8000"),
    ],
)
def test_the_public_name_is_kept_in_one_form(given: str, used: str) -> None:
    assert read_settings({"WIO_PUBLIC_NAME": given}).address(1) == used


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WIO_PORT", "-1"),
        ("WIO_PORT", "65536"),
        ("WIO_PORT", "\uff18\uff10\uff10\uff10"),
        ("WIO_PORT", "9" * 5000),
        ("WIO_PORT", "http"),
        ("WIO_HOST", "http://0.0.0.0"),
        ("WIO_HOST", "a b"),
        ("WIO_SECRET", "short"),
        ("WIO_PUBLIC_NAME", "ftp://hub"),
        ("WIO_PUBLIC_NAME", "https://user:pass@hub"),
        ("WIO_PUBLIC_NAME", "https://hub/?q=1"),
        ("WIO_PUBLIC_NAME", "javascript:alert(1)"),
        ("WIO_PUBLIC_NAME", "https://hub:99999"),
        ("WIO_DATABASE_URL", "mysql://u:p@db/wio"),
        ("WIO_DATABASE_URL", "postgresql://u:p@db"),
        ("WIO_DATABASE_URL", "postgresql://u:p@db:port/wio"),
        ("WIO_DATABASE_URL", "sqlite://"),
        ("WIO_DATABASE_URL", "sqlite:///:memory:"),
        ("WIO_DATABASE_URL", "nonsense"),
        ("WIO_REGISTRATION", "maybe"),
        ("WIO_PROXY_HEADERS", "yes"),
        ("WIO_PROXY_HEADERS", "11"),
        ("WIO_LOG", "xml"),
        ("WIO_ELASTICSEARCH_NODE_1", "http://search:9200"),
        ("WEB_CONCURRENCY", "2"),
        ("WEB_CONCURRENCY", "many"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(BadSetting) as caught:
        read_settings({name: value})
    assert caught.value.code == "bad-setting"
    assert name in str(caught.value)
    assert caught.value.todo


@pytest.mark.parametrize(
    "environ",
    [
        {"WIO_SECRET": "canary-short"},
        {"WIO_DATABASE_URL": "mysql://u:canary@db/wio"},
        {"WIO_DATABASE_URL": "postgresql://u:canary@db:port/wio"},
    ],
)
def test_a_refusal_repeats_no_secret(environ: dict[str, str]) -> None:
    with pytest.raises(BadSetting) as caught:
        read_settings(environ)
    assert "canary" not in repr(caught.value) + caught.value.todo + repr(caught.value.__cause__)


def test_what_is_told_of_settings_hides_secrets_and_names_their_source() -> None:
    environ = {"WIO_SECRET": f"canary{_SECRET}", "WIO_DATABASE_URL": "postgresql://u:canary@db/wio", "WIO_PORT": "9"}
    settings = read_settings(environ)
    told = {row.name: row for row in tell_settings(environ, settings)}
    assert list(told) == [setting.name for setting in SETTINGS]
    assert "canary" not in repr(told) + repr(settings)
    assert told["WIO_DATABASE_URL"].value == "postgresql+asyncpg://u:***@db/wio"
    assert (told["WIO_PORT"].value, told["WIO_PORT"].source) == ("9", "environment")
    assert (told["WIO_HOST"].value, told["WIO_HOST"].source) == ("127.0.0.1", "default")
    assert told["WIO_SECRET"].source == "environment"


def test_a_misspelt_setting_is_noticed_and_foreign_ones_are_left_alone() -> None:
    found = misspelt(
        {"WIO_SECERT": "x", "WIO_HUB": "x", "WIO_AGENT_STATE": "x", "WIO_TOKEN": "x", "WIO_DATA": "/d", "HOME": "/"}
    )
    assert len(found) == 1
    assert "WIO_SECERT" in found[0]
    assert "WIO_SECRET" in found[0]


def test_every_setting_has_its_row_in_the_documentation_and_every_row_its_setting() -> None:
    documented = re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", _DOCS.read_text(), flags=re.MULTILINE)
    assert documented == [setting.name for setting in SETTINGS]


def test_every_setting_that_is_listed_is_read() -> None:
    for setting in SETTINGS:
        if setting.name == "WIO_DATA":
            continue  # any text is a path
        with pytest.raises(BadSetting, match=setting.name):
            read_settings({setting.name: "\x00"})
