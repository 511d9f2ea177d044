"""What a hub can be told from outside: every setting, its default, and where its value came from.

Settings are environment variables and nothing else, so that a service unit, a container and a shell say the same thing in
the same way. Reading them touches neither disk nor network: ``hub.home`` makes the data directory and the secret. Every
setting is a row of ``SETTINGS`` and a row of docs/settings.md; a test holds the two against each other.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from platformdirs import user_data_dir
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from protocol.errors import BadJoinString, BadSetting
from protocol.identity import check_hub_url
from protocol.names import shown

T = TypeVar("T")

MIN_SECRET: Final = 32
"""Characters of WIO_SECRET: whoever reads the database can try secrets offline, so a short one would be guessed."""
_MAX_PORT: Final = 65_535
_MAX_HOPS: Final = 10
_MAX_DAYS: Final = 36_500
_MAX_ALARM_S: Final = 86_400 * 30
_MIN_TOKEN: Final = 16
_NEAR: Final = 0.85
"""How alike two names are, by difflib, when one is taken for the other misspelt."""


class Registration(enum.StrEnum):
    """Who may make an account."""

    OPEN = "open"
    CLOSED = "closed"


class LogForm(enum.StrEnum):
    """How log lines look."""

    PLAIN = "plain"
    JSON = "json"


class Settings(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """Everything a hub is told. ``repr`` shows neither the secret nor the database's password."""

    data: Path
    """The directory that holds everything that is not in a database of its own."""
    host: str
    port: int
    """0: any free one."""
    secret: str | None
    """None: the one in the data directory, made at the first start."""
    public_name: str | None
    """The hub's address as people and agents write it; None: loopback and the port."""
    database_url: str
    """In SQLAlchemy's form."""
    registration: Registration
    proxy_hops: int
    log_form: LogForm
    access_days: int
    """How long attributed accesses are kept."""
    alarm_offline_s: int = 300
    alarm_behind_s: int = 60
    alarm_unscanned_days: int = 7
    alarm_url: str | None = None
    """Where alarms are told; it may hold a password or a token."""
    metrics_token: str | None = None
    """Whoever shows it may read GET /metrics; None: nobody."""

    def __repr__(self) -> str:
        return f"Settings(data={str(self.data)!r}, host={self.host!r}, port={self.port})"

    @property
    def index(self) -> Path:
        """The directory of the search index."""
        return self.data / "index"

    def address(self, port: int) -> str:
        """Return the hub's address as people write it, given the port it really listens on."""
        return self.public_name or f"http://127.0.0.1:{port}"


class Setting(msgspec.Struct, frozen=True):
    """One variable. ``default`` is what a person reads about it; ``secret`` values are never shown."""

    name: str
    default: str
    about: str
    secret: bool = False


class Told(msgspec.Struct, frozen=True):
    """A setting's value as it may be shown, and where it comes from: ``environment`` or ``default``."""

    name: str
    value: str
    source: str
    about: str


SETTINGS: Final = (
    Setting("WIO_DATA", "the platform's data directory for wio-hub", "Directory of database, search index and secret"),
    Setting("WIO_HOST", "127.0.0.1", "Address to listen on"),
    Setting("WIO_PORT", "8000", "Port to listen on; 0 takes any free one"),
    Setting("WIO_SECRET", "made at the first start, kept in the data directory", "Seals the hub's signing key", secret=True),
    Setting("WIO_PUBLIC_NAME", "http://127.0.0.1 and the port", "The hub's address as people and agents use it"),
    Setting("WIO_DATABASE_URL", "SQLite in the data directory", "sqlite:///… or postgresql://…"),
    Setting("WIO_REGISTRATION", "open", "open or closed: whether anybody may register"),
    Setting("WIO_PROXY_HEADERS", "0", "How many reverse proxies stand in front, whose X-Forwarded-For is believed"),
    Setting("WIO_ACCESS_DAYS", "400", "Days for which the hub keeps who read or wrote which file"),
    Setting("WIO_ALARM_OFFLINE_S", "300", "Seconds without a node's agent from which on that is an alarm"),
    Setting("WIO_ALARM_BEHIND_S", "60", "Seconds for which changes may wait without a scan before that is an alarm"),
    Setting(
        "WIO_ALARM_UNSCANNED_DAYS", "7", "Days without a completed scan that are an alarm, unless its agent says an interval"
    ),
    Setting(
        "WIO_ALARM_URL", "not set", "An address to which alarms are sent as JSON when they are raised and end", secret=True
    ),
    Setting("WIO_METRICS_TOKEN", "not set", "Whoever shows it may read GET /metrics; without it nobody may", secret=True),
    Setting("WIO_LOG", "plain", "plain or json: the form of log lines"),
    Setting("WIO_ELASTICSEARCH_NODE_1", "not set", "A search server; this version has its own index only"),
    Setting("WEB_CONCURRENCY", "1", "Worker processes; this version runs one"),
)


def read_settings(environ: Mapping[str, str], **options: str | None) -> Settings:
    """Read the environment; ``options`` (``data``, ``host``, ``port``) win over it. Raises BadSetting, naming the variable."""
    given = {name: value for name, value in environ.items() if value.strip() != ""}
    given |= {f"WIO_{name.upper()}": value for name, value in options.items() if value is not None}
    data = Path(given.get("WIO_DATA") or user_data_dir("wio-hub", appauthor=False)).expanduser().absolute()
    _refuse_what_is_not_served(given)
    return Settings(
        data=data,
        host=_read(given, "WIO_HOST", "127.0.0.1", _host),
        port=_read(given, "WIO_PORT", "8000", lambda text: _number(text, 0, _MAX_PORT)),
        secret=_read(given, "WIO_SECRET", None, _secret, secret=True),
        public_name=_read(given, "WIO_PUBLIC_NAME", None, _public_name),
        database_url=_read(given, "WIO_DATABASE_URL", f"sqlite:///{data / 'hub.sqlite'}", _database_url, secret=True),
        registration=_read(given, "WIO_REGISTRATION", "open", Registration),
        proxy_hops=_read(given, "WIO_PROXY_HEADERS", "0", lambda text: _number(text, 0, _MAX_HOPS)),
        log_form=_read(given, "WIO_LOG", "plain", LogForm),
        access_days=_read(given, "WIO_ACCESS_DAYS", "400", lambda text: _number(text, 1, _MAX_DAYS)),
        alarm_offline_s=_read(given, "WIO_ALARM_OFFLINE_S", "300", lambda text: _number(text, 30, _MAX_ALARM_S)),
        alarm_behind_s=_read(given, "WIO_ALARM_BEHIND_S", "60", lambda text: _number(text, 10, _MAX_ALARM_S)),
        alarm_unscanned_days=_read(given, "WIO_ALARM_UNSCANNED_DAYS", "7", lambda text: _number(text, 1, _MAX_DAYS)),
        alarm_url=_read(given, "WIO_ALARM_URL", None, _url, secret=True),
        metrics_token=_read(given, "WIO_METRICS_TOKEN", None, _token, secret=True),
    )


def tell_settings(environ: Mapping[str, str], settings: Settings) -> list[Told]:
    """Return every setting with its value as it may be shown and where that comes from."""
    values = {
        "WIO_DATA": str(settings.data),
        "WIO_HOST": settings.host,
        "WIO_PORT": str(settings.port),
        "WIO_PUBLIC_NAME": settings.address(settings.port),
        "WIO_DATABASE_URL": make_url(settings.database_url).render_as_string(hide_password=True),
        "WIO_REGISTRATION": settings.registration.value,
        "WIO_PROXY_HEADERS": str(settings.proxy_hops),
        "WIO_ALARM_OFFLINE_S": str(settings.alarm_offline_s),
        "WIO_ALARM_BEHIND_S": str(settings.alarm_behind_s),
        "WIO_ALARM_UNSCANNED_DAYS": str(settings.alarm_unscanned_days),
        "WIO_LOG": settings.log_form.value,
        "WIO_ACCESS_DAYS": str(settings.access_days),
        "WEB_CONCURRENCY": "1",
    }
    told = []
    for setting in SETTINGS:
        source = "environment" if environ.get(setting.name, "").strip() else "default"
        value = values.get(setting.name, setting.default)
        if setting.secret:
            value = "(hidden)" if source == "environment" else setting.default
        told.append(Told(setting.name, value, source, setting.about))
    return told


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that looks like a setting of the hub and is none."""
    known = {setting.name for setting in SETTINGS}
    sentences = []
    for name in sorted(set(environ) - known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        if near:
            sentences.append(f"{shown(name)} is set, but is no setting of the hub; is {near[0]} meant?")
    return sentences


# ------------------------------------------------------------------------------------------------------ reading


def _read(given: Mapping[str, str], name: str, default: str | None, read: Callable[[str], T], *, secret: bool = False) -> T:
    text = given.get(name, default)
    if text is None:
        return None  # type: ignore[return-value]  # T holds None wherever the default is None
    try:
        return read(text.strip())
    except (ValueError, ArgumentError) as error:
        value = "has a value that cannot be used" if secret else f"is {shown(text)}, which cannot be used"
        raise BadSetting(f"{name} {value}: {_why(error)}.", todo="See docs/settings.md.") from None


def _why(error: Exception) -> str:
    if isinstance(error, ArgumentError):  # its own words repeat the URL, and with it the password
        return "it is not a database URL"
    return str(error)


def _number(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and least <= int(text[:9]) <= most):
        raise ValueError(f"a whole number from {least} to {most} is needed")
    return int(text)


def _host(text: str) -> str:
    if not text.isprintable() or any(c in text for c in " /@") or "://" in text:
        raise ValueError("an address or host name without a port is needed")
    return text


def _secret(text: str) -> str:
    if len(text) < MIN_SECRET:
        raise ValueError(f"it has {len(text)} characters; {MIN_SECRET} are needed, for example from: openssl rand -hex 32")
    return text


def _token(text: str) -> str:
    if len(text) < _MIN_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{_MIN_TOKEN} letters and digits at least are needed, for example from: openssl rand -hex 16")
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not text.isprintable() or " " in text:
        raise ValueError("an address like https://alarms.example.org/wio is needed")
    return text


def _public_name(text: str) -> str:
    url = text.rstrip("/") if "://" in text else f"https://{text.rstrip('/')}"
    try:
        return check_hub_url(url)
    except BadJoinString:
        raise ValueError("an address like https://hub.example.org is needed") from None


def _database_url(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if separator and scheme in {"postgres", "postgresql", "postgresql+asyncpg"}:
        return _postgres(make_url(f"postgresql+asyncpg://{rest}"))
    if separator and scheme in {"sqlite", "sqlite+aiosqlite"}:
        url = make_url(f"sqlite+aiosqlite://{rest}")
        if not url.database or url.database == ":memory:":
            raise ValueError("a SQLite database needs a file, for example sqlite:////var/lib/wio/hub.sqlite")
        return url.render_as_string(hide_password=False)
    raise ValueError("sqlite:///path or postgresql://user:password@host/name is needed")


def _postgres(url: URL) -> str:
    if not url.database:
        raise ValueError("the name of the database is missing at its end")
    mode = url.query.get("sslmode")
    if mode is not None:  # libpq's word; asyncpg says ssl
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url.render_as_string(hide_password=False)


def _refuse_what_is_not_served(given: Mapping[str, str]) -> None:
    if "WIO_ELASTICSEARCH_NODE_1" in given:
        raise BadSetting(
            "WIO_ELASTICSEARCH_NODE_1 is set, but this version of the hub searches in its own index only.",
            todo="Remove the variable; the index in the data directory needs nothing else.",
        )
    workers = given.get("WEB_CONCURRENCY", "1").strip()
    if workers != "1":
        raise BadSetting(
            f"WEB_CONCURRENCY is {shown(workers)}, but this version of the hub runs as one worker process.",
            todo="Remove the variable, or set it to 1.",
        )
