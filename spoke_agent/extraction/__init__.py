"""Reading fields out of files in worker processes that may hang, crash and lie without costing more than the file at hand.

The caller says how to read ranges of a file; a worker sees those bytes and nothing else: no key, no network, no environment.
Knows extractors and the protocol, nothing of storage, index or hub.
"""

from spoke_agent.extraction.budget import Budget
from spoke_agent.extraction.extraction import Extraction
from spoke_agent.extraction.process import Read

__all__ = ["Budget", "Extraction", "Read"]
