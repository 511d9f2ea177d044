"""What can be set about an agent: where its state lies, and a few habits. Who the node is lies in the state directory."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import platformdirs

from protocol.errors import BadEndpoint, BadSetting
from protocol.names import shown

STATE_VARIABLE: Final = "WIO_AGENT_STATE"
SCAN_EVERY_VARIABLE: Final = "WIO_AGENT_SCAN_EVERY_S"
LISTEN_VARIABLE: Final = "WIO_AGENT_LISTEN"
ENDPOINT_VARIABLE: Final = "WIO_AGENT_ENDPOINT"
OUTLIVE_VARIABLE: Final = "WIO_AGENT_KEYS_OUTLIVE_S"
POLL_VARIABLE: Final = "WIO_AGENT_POLL"
OFF: Final = "off"
_POLLING: Final = {"auto": None, "always": True, "never": False}
_METADATA: Final = ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128")
"""Where clouds serve their machines' credentials, and everything else that is link-local: no storage server lives there."""


class Settings(msgspec.Struct, frozen=True):
    """An agent's settings. ``listen`` is (host, port, url) for the storage server's events; port 0: any free one."""

    state: Path
    scan_every_s: float = 6 * 3600.0
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    endpoint_host: str = "127.0.0.1"
    """Where keys are given to people on this machine; empty: nowhere."""
    endpoint_port: int = 0
    outlive_s: float = 30.0
    """Of a directory node: for how many seconds its gateway, and with it the keys that are out, may outlive the agent."""
    polling: bool | None = None
    """Of a directory node: look through it again and again for changes; None: where its file system does not report them."""


def read(environment: Mapping[str, str], state: Path | None = None) -> Settings:
    """Read the settings; ``state`` is what the command line says. Raises BadSetting."""
    where = state or Path(environment.get(STATE_VARIABLE) or platformdirs.user_state_path("wio-agent"))
    seconds = _seconds(environment, SCAN_EVERY_VARIABLE, "21600", 60, 31_536_000)
    outlive = _seconds(environment, OUTLIVE_VARIABLE, "30", 0, 86_400)
    host, port = _listen(LISTEN_VARIABLE, environment.get(LISTEN_VARIABLE) or "127.0.0.1:0")
    at = environment.get(ENDPOINT_VARIABLE) or "127.0.0.1:0"
    give_host, give_port = ("", 0) if at == OFF else _listen(ENDPOINT_VARIABLE, at)
    poll = environment.get(POLL_VARIABLE) or "auto"
    if poll not in _POLLING:
        raise BadSetting(f"{POLL_VARIABLE}={shown(poll)} is none of {', '.join(_POLLING)}.")
    return Settings(where.expanduser().absolute(), seconds, host, port, give_host, give_port, outlive, _POLLING[poll])


def _seconds(environment: Mapping[str, str], variable: str, default: str, least: int, most: int) -> float:
    text = environment.get(variable) or default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= most:
        raise BadSetting(f"{variable}={shown(text)} is not a number of seconds from {least} to {most}.")
    return seconds


def _listen(variable: str, text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.port is not None and not parts.path:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise BadSetting(f"{variable}={shown(text)} is not an address and a port, such as 127.0.0.1:0.")


def check_endpoint(url: str) -> str:
    """Return a storage server's address without a final slash; raise BadEndpoint if it may not be one.

    http or https, a host, nothing else: no user, path or query; and never a link-local address, which is where clouds
    hand out the credentials of the machine.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    else:
        good = good and "@" not in parts.netloc and parts.path in {"", "/"} and not parts.query and not parts.fragment
    if not good or not url.isprintable() or " " in url:
        raise BadEndpoint(
            f"{shown(url)} is not the address of a storage server.", todo="Give http://HOST:PORT or https://HOST, no more."
        )
    host = parts.hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return url.rstrip("/")
    mapped = getattr(address, "ipv4_mapped", None) or address
    if any(mapped in ipaddress.ip_network(network) for network in _METADATA) or mapped.is_unspecified:
        raise BadEndpoint(
            f"{shown(url)} is an address at which no storage server lives: clouds hand out their machines' credentials there."
        )
    return url.rstrip("/")
