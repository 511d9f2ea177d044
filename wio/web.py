"""httpx, without its own command line.

``import httpx`` also loads the ``httpx`` command (click, pygments and all of rich: 180 of 290 ms) if those happen to be
installed, as they are here. Asking for it is turned down for as long as the import takes: httpx then goes without, as it
does where they are not installed.
"""

from __future__ import annotations

import sys

_COMMAND_LINE = "httpx._main"

if "httpx" not in sys.modules and _COMMAND_LINE not in sys.modules:
    sys.modules[_COMMAND_LINE] = None  # type: ignore[assignment]  # Python's own way of saying: not to be had
    try:
        import httpx
    finally:
        del sys.modules[_COMMAND_LINE]
else:
    import httpx

__all__ = ["httpx"]
