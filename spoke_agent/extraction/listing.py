"""A process that imports every extractor and says what it is: ``python -m spoke_agent.extraction.listing MEMORY [NAME …]``.

A package of somebody else may hang or crash while it is imported: the process first says which it is about to import, and
leaves out those whose names it is given. One JSON object a line.
"""

from __future__ import annotations

import os
import sys

import msgspec

from spoke_agent.extraction.catalogue import Known, Loading
from spoke_agent.extraction.confinement import confine
from spoke_agent.extractors import Extractor, load, plugins
from spoke_agent.extractors.plugins import missing


def main() -> None:
    """Import one extractor after the other and say what it is."""
    line = os.dup(1)  # extractors may print
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    without = set(sys.argv[2:])
    found = [plugin for plugin in plugins() if plugin.name not in without]
    confine(int(sys.argv[1]))
    for plugin in found:
        _say(line, Loading(plugin.name))
        try:
            _say(line, described(plugin.name, plugin.target, load(plugin)))
        except BaseException as error:  # noqa: BLE001 - somebody else's code: even SystemExit costs only itself
            _say(line, Known(plugin.name, plugin.target, broken=f"It cannot be loaded ({type(error).__name__})."))


def described(name: str, target: str, extractor: Extractor) -> Known:
    """Return what an extractor says of itself. Raises whatever it raises, and ValidationError for what it may not say."""
    for part in ("fits", "extract"):
        if not callable(getattr(extractor, part)):
            raise TypeError(f"Its {part} cannot be called.")
    said = Known(name, target, extractor.version, extractor.what, tuple(extractor.endings), tuple(missing(extractor)))
    return msgspec.convert(msgspec.to_builtins(said), Known)


def _say(line: int, message: Known | Loading) -> None:
    os.write(line, msgspec.json.encode(message) + b"\n")


if __name__ == "__main__":
    main()
