"""Index arithmetic of tiled kernels: which queries, which keys, in which order. Plain integers, for every backend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Band", "Window", "clamp", "splits", "tiles"]

Window = tuple[int | None, int | None] | None


def tiles(indices: slice, block: int) -> Iterator[slice]:
    """Cut `indices` into tiles of `block`; the last one may be shorter. An empty range has no tiles."""
    for start in range(indices.start, indices.stop, block):
        yield slice(start, min(start + block, indices.stop))


def splits(length: int, count: int) -> Iterator[slice]:
    """Cut `length` into exactly `count` nearly equal parts, some of them empty if there are more parts than elements."""
    edges = (length * part // count for part in range(count + 1))
    for start, stop in pairwise(edges):
        yield slice(start, stop)


def clamp(value: int, lowest: int, highest: int) -> int:
    """The value, or the bound that it passes."""
    return max(lowest, min(value, highest))


@dataclass(frozen=True)
class Band:
    """What causality and the window leave of the (query, key) plane: ``lowest <= key - query <= highest``.

    Both are aligned bottom-right: the last query stands at the last key.

    Attributes:
        queries: number of queries.
        keys: number of keys.
        lowest: smallest allowed key - query.
        highest: largest allowed key - query.
    """

    queries: int
    keys: int
    lowest: int
    highest: int

    @classmethod
    def of(cls, queries: int, keys: int, causal: bool, window: Window) -> Band:
        """The band of the options `causal` and `window`."""
        left, right = window or (None, None)
        offset = keys - queries
        # -queries and keys lie just outside the plane: they stand for "unbounded", and they keep any window within 64 bits.
        lowest = -queries if left is None else clamp(offset - left, -queries, keys)
        highest = keys if right is None else clamp(offset + right, -queries, keys)
        return cls(queries, keys, lowest, min(highest, offset) if causal else highest)

    def holds(self, queries: slice, keys: slice) -> bool:
        """Whether every one of these queries may reach every one of these keys."""
        return self.lowest <= keys.start - (queries.stop - 1) and keys.stop - 1 - queries.start <= self.highest

    def keys_of(self, queries: slice) -> slice:
        """The keys that at least one of these queries may reach; tiles outside need not be visited."""
        return slice(max(0, queries.start + self.lowest), min(self.keys, queries.stop + self.highest))

    def queries_of(self, keys: slice) -> slice:
        """The queries that may reach at least one of these keys."""
        return slice(max(0, keys.start - self.highest), min(self.queries, keys.stop - self.lowest))
