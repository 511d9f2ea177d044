"""Which looks at storage count: one that began after the last accepted look at the same key, and no other.

A look takes time, and several go on at once: two of them may come back in the other order than they saw the storage. So
every look is announced before its request goes out, and whenever one is accepted, all others that are still under way are
told what it *overtook*. There they no longer count; whoever made them looks again where they disagree. Pure; used in the
event loop alone, so that announcing and accepting have one order.
"""

from __future__ import annotations

from typing import Final

from spoke_agent.index.spans import Span, apart

MAX_OVERTAKEN: Final = 50_000
"""Keys remembered per listing; beyond that nothing it saw counts any more."""
MAX_OVERTAKEN_SPANS: Final = 1_000
"""The same for spans of other listings: only a listing that overlaps another has any."""


class Look:
    """One look under way: at a key, or at a span of keys."""

    __slots__ = ("_keys", "_spans", "_void", "key", "root", "span")

    def __init__(self, root: int, *, key: str | None = None, span: Span | None = None) -> None:
        self.root = root
        self.key = key
        self.span = span
        self._keys: set[str] = set()
        self._spans: list[Span] = []
        self._void = False

    @property
    def void(self) -> bool:
        """Whether nothing that it saw counts any more."""
        return self._void

    def counts(self, key: str) -> bool:
        """Say whether what it saw of ``key`` may be accepted."""
        return not self._void and key not in self._keys and not any(span.holds(key) for span in self._spans)

    def overtaken(self) -> tuple[frozenset[str], tuple[Span, ...]]:
        """Return a copy of what was overtaken so far, for use in another thread."""
        return frozenset(self._keys), tuple(self._spans)

    def overtake_key(self, key: str) -> None:
        """Another look at this key was accepted."""
        self._keys.add(key)
        self._bound()

    def overtake_span(self, span: Span) -> None:
        """Another listing of these keys was accepted."""
        self._spans.append(span)
        self._bound()

    def _bound(self) -> None:
        if len(self._keys) > MAX_OVERTAKEN or len(self._spans) > MAX_OVERTAKEN_SPANS:
            self._void = True
            self._keys.clear()
            self._spans.clear()


class Looks:
    """All looks under way."""

    def __init__(self) -> None:
        self._keys: dict[tuple[int, str], set[Look]] = {}
        self._listings: set[Look] = set()

    def at_key(self, root: int, key: str) -> Look:
        """Announce a look at one key."""
        look = Look(root, key=key)
        self._keys.setdefault((root, key), set()).add(look)
        return look

    def at_span(self, root: int, span: Span) -> Look:
        """Announce a listing."""
        look = Look(root, span=span)
        self._listings.add(look)
        return look

    def end(self, look: Look) -> None:
        """Forget a look that is over, accepted or not."""
        if look.key is None:
            self._listings.discard(look)
            return
        there = self._keys.get((look.root, look.key), set())
        there.discard(look)
        if not there:
            self._keys.pop((look.root, look.key), None)

    def accept_key(self, look: Look, key: str) -> None:
        """Note that a look at one key was accepted: that it is there, or that it is not."""
        for other in self._keys.get((look.root, key), ()):
            if other is not look:
                other.overtake_key(key)
        for other in self._listings:
            if other is not look and other.root == look.root and (other.span is None or other.span.holds(key)):
                other.overtake_key(key)

    def accept_span(self, look: Look, span: Span) -> None:
        """Note that a listing was accepted for a whole span: keys not in it were seen to be absent."""
        for (root, key), others in self._keys.items():
            if root == look.root and span.holds(key):
                for other in others:
                    other.overtake_key(key)
        for other in self._listings:
            if other is not look and other.root == look.root and (other.span is None or not apart(other.span, span)):
                other.overtake_span(span)
