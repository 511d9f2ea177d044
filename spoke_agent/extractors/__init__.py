"""What can read fields out of files: one module for each kind of file, and how somebody else's are found.

Runs inside worker processes (``spoke_agent.extraction``), over bytes that anybody may have written. Knows the protocol's
``Fields`` and nothing of storage, index or hub. Libraries of file formats are imported where a file is read, never before.
"""

from spoke_agent.extractors.interface import Extractor, Unreadable, Wanted, ending
from spoke_agent.extractors.plugins import GROUP, OURS, Plugin, load, plugins
from spoke_agent.extractors.source import Source, Stopped

__all__ = [
    "GROUP",
    "OURS",
    "Extractor",
    "Plugin",
    "Source",
    "Stopped",
    "Unreadable",
    "Wanted",
    "ending",
    "load",
    "plugins",
]
