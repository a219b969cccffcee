"""The pages of a cache, counted after each operation: none lost, none owned twice, none used that is free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from operator import eq
from typing import Any

from conformance.errors import DriverError
from oracle.operations import Moment

__all__ = ["PageError", "Pages", "shows_pages"]


class PageError(DriverError):
    """The pages of a cache do not add up; the message says which page, whose, and after which operation."""

    kind = "pages"


def shows_pages(cache: object) -> bool:
    """Whether a cache, or its class, says who owns its pages."""
    return all(callable(getattr(cache, name, None)) for name in ("block_tables", "free_blocks"))


class Pages:
    """Counts the pages of one cache and poisons the free ones.

    Args:
        cache: that shows its pages.
        windowed: whether it may drop pages that lie before a sliding window.
        alike: whether tokens, by number, are the same to a cache: one that goes by content shares the pages of all that have the same
            keys and values.
    """

    def __init__(self, cache: Any, windowed: bool, alike: Callable[[list[int], list[int]], bool] = eq) -> None:
        self.cache, self.windowed, self.alike = cache, windowed, alike
        self._seen: set[int] = set()

    def check(self, moment: Moment) -> None:
        """Raise `PageError` unless they add up after an operation; then poison the free ones."""
        if (trouble := self._trouble(moment)) is not None:
            raise PageError(f"{trouble} after operation {moment.step}, {moment.operation}")
        self._poison()

    def _trouble(self, moment: Moment) -> str | None:
        tables = {int(request): [int(block) for block in table if int(block) >= 0] for request, table in self.cache.block_tables().items()}
        free = Counter(int(block) for block in self.cache.free_blocks())
        for block, times in free.items():
            if times > 1:
                return f"page {block} is free {times} times"
        for request, table in tables.items():
            if table and request not in moment.resident:
                return f"request {request} has pages {table}, but is {moment.states.get(request, 'finished')}"
            for block, times in Counter(table).items():
                if block in free:
                    return f"page {block} is free although request {request} uses it"
                if times > 1:
                    return f"page {block} stands {times} times in the block table of request {request}"
        return self._too_few(tables, moment) or self._owned_twice(tables, moment) or self._lost(tables, set(free))

    def _too_few(self, tables: Mapping[int, Sequence[int]], moment: Moment) -> str | None:
        if self.windowed:
            return None
        size = int(self.cache.block_size)
        for request in moment.resident:
            tokens, pages = len(moment.histories[request]), len(tables.get(request, ()))
            if pages * size < tokens:
                return f"request {request} has {pages} pages of {size}, but {tokens} tokens"
        return None

    def _owned_twice(self, tables: Mapping[int, Sequence[int]], moment: Moment) -> str | None:
        """Requests may share the pages that hold the same tokens for both: those of a common prefix, as far as each has come."""
        size = int(self.cache.block_size)
        for one, other in combinations(sorted(tables), 2):
            for block in sorted(set(tables[one]) & set(tables[other])):
                first, second = tables[one].index(block), tables[other].index(block)
                held = [moment.histories[request][at * size : (at + 1) * size] for request, at in ((one, first), (other, second))]
                common = min(map(len, held))
                firsts = (moment.histories[request][:1] for request in (one, other))
                shared = self.alike(*firsts) if self.windowed else self.alike(held[0][:common], held[1][:common])
                if not shared or (first != second and not self.windowed):
                    return f"page {block} is owned twice, by requests {one} and {other}, whose tokens there differ,"
        return None

    def _lost(self, tables: Mapping[int, Sequence[int]], free: set[int]) -> str | None:
        kept = {int(block) for block in self.cache.kept_blocks()} if hasattr(self.cache, "kept_blocks") else set()
        known = free | kept | {block for table in tables.values() for block in table}
        self._seen |= known
        every = set(range(len(self.cache.k_pages))) if hasattr(self.cache, "k_pages") else self._seen
        if beyond := sorted(known - every):
            return f"page {beyond[0]} is none of the {len(every)} that there are"
        if lost := sorted(every - known):
            return f"page {lost[0]} is lost, neither free nor used,"
        return None

    def _poison(self) -> None:
        free = [int(block) for block in self.cache.free_blocks()]
        for pages in (getattr(self.cache, name, None) for name in ("k_pages", "v_pages")):
            if pages is not None and free:
                pages[free] = float("nan")
