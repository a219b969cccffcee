"""Mistakes of caches in where tokens lie: pages, copies on writing, swapping, and what a request leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from conformance.pitfalls import Setting
from conformance.pitfalls.caches import BATCHING, NOTHING, USUAL_PAGE, CacheMistake, Page
from oracle.operations import Moment

PAGES = "Kwon et al. 2023, section 4, arXiv:2309.06180"


class CopyOnWriteMissing(CacheMistake):
    name = "copy-on-write-missing"
    explanation = "After a fork both requests write into the last page that they share, each over the other's tokens."
    citation = PAGES
    needs = "forks"
    variants = (4, USUAL_PAGE)

    def shared(self, page: Page) -> bool:
        return False


class ForkDropsPartialPage(CacheMistake):
    name = "fork-drops-partial-page"
    explanation = "A fork shares the full pages alone: the copy lacks the tokens of the last, partial page."
    citation = PAGES
    needs = "forks"
    variants = (4, USUAL_PAGE)

    def fork(self, parent: int, child: int) -> None:
        full = self.lengths[parent] // self.block
        self.tables[child], self.lengths[child] = self.tables[parent][:full], full * self.block


class TableSharedByFork(CacheMistake):
    name = "block-table-shared-by-fork"
    explanation = "A fork shares the block table itself: pages that one request adds stand in the other's table too."
    citation = PAGES
    needs = "forks"
    variants = (4, USUAL_PAGE)

    def fork(self, parent: int, child: int) -> None:
        self.tables[child], self.lengths[child] = self.tables[parent], self.lengths[parent]


class SharedPagesFreed(CacheMistake):
    name = "shared-pages-freed"
    explanation = "A request that leaves frees its pages although others still read them: a page is freed twice, or used when free."
    citation = PAGES
    needs = "forks"

    def release(self, table: Iterable[Page]) -> None:
        for page in table:
            page[:] = [NOTHING] * len(page)


class FullPageOneShort(CacheMistake):
    name = "last-token-of-full-page-unread"
    explanation = "Where the tokens fill the last page exactly, its last token is not read: an off-by-one at the page boundary."
    citation = PAGES
    variants = (4, USUAL_PAGE)

    def held(self, request: int, resident: Sequence[int]) -> list[int]:
        held = super().held(request, resident)
        return held[:-1] if len(held) % self.block == 0 else held


class PartialPageUnread(CacheMistake):
    name = "partial-page-unread"
    explanation = "The number of pages is rounded down: the tokens of the last, partial page are not read."
    citation = PAGES
    variants = (4, USUAL_PAGE)

    def held(self, request: int, resident: Sequence[int]) -> list[int]:
        held = super().held(request, resident)
        return held[: len(held) // self.block * self.block]


class PageSwitchLate(CacheMistake):
    name = "page-switch-one-late"
    explanation = "The first token after a page switch is written into the old page, over its first token; its own slot stays unwritten."
    citation = PAGES
    variants = (4, USUAL_PAGE)

    def append(self, request: int, tokens: Sequence[int]) -> None:
        for token in tokens:
            super().append(request, [token])
            length, table = self.lengths[request], self.tables[request]
            if length % self.block == 1 and len(table) > 1 and self.block > 1:
                table[-1][0], table[-2][0] = NOTHING, token


class OnlyLastWritten(CacheMistake):
    name = "only-last-token-written"
    explanation = "A request that grows by several tokens gets the last of them alone; the slots of the others stay unwritten."
    citation = BATCHING
    needs = "grows"

    def grow(self, request: int, tokens: Sequence[int]) -> None:
        self.append(request, [*([NOTHING] * (len(tokens) - 1)), tokens[-1]])


class StaleLength(CacheMistake):
    name = "length-stale-after-preemption"
    explanation = "A preempted request keeps its length: resumed, it writes its tokens behind where the old ones were."
    citation = PAGES
    needs = "preempts"

    def resume(self, request: int, history: Sequence[int]) -> None:
        super().resume(request, [*([NOTHING] * len(history)), *history])


class PageNumberInByte(CacheMistake):
    name = "page-number-in-a-byte"
    explanation = "Block tables keep the numbers of pages in 8 bits: page 256 is taken for page 0."
    citation = PAGES
    needs = "most_tokens > 256"
    variants = (1, USUAL_PAGE)

    def table_read(self, request: int, resident: Sequence[int]) -> list[Page]:
        table = super().table_read(request, resident)
        return [table[number % 256] for number in range(len(table))]


class LengthInByte(CacheMistake):
    name = "length-in-a-byte"
    explanation = "The number of a request's tokens is kept in 8 bits: of 257 tokens one is read."
    citation = BATCHING
    needs = "most_tokens > 256"

    def held(self, request: int, resident: Sequence[int]) -> list[int]:
        held = super().held(request, resident)
        return held[: len(held) % 256]


class SwapReverses(CacheMistake):
    name = "swap-reverses-pages"
    explanation = "Swapping restores the pages in the opposite order."
    citation = PAGES
    needs = "swaps"
    variants = (4, USUAL_PAGE)

    def swap_in(self, request: int) -> None:
        super().swap_in(request)
        self.tables[request].reverse()


class SwapDropsPartialPage(CacheMistake):
    name = "swap-drops-partial-page"
    explanation = "Full pages alone are swapped: the tokens of the last, partial page are gone afterwards."
    citation = PAGES
    needs = "swaps"
    variants = (4, USUAL_PAGE)

    def swap_in(self, request: int) -> None:
        super().swap_in(request)
        full = self.lengths[request] // self.block
        self.tables[request], self.lengths[request] = self.tables[request][:full], full * self.block


class HistoryKept(CacheMistake):
    name = "history-kept-after-finish"
    explanation = "What a finished request left stays under its number: the next request of that number reads it too."
    citation = BATCHING
    needs = "finishes"

    def finish(self, request: int) -> None:
        if request in self.tables:
            self.elsewhere.pop(request, None)
        else:
            super().finish(request)


class TableOfRemoved(CacheMistake):
    name = "block-table-of-removed-request"
    explanation = "Block tables are not moved up when a request leaves: those behind it read the table of the one before them."
    citation = BATCHING
    needs = "finishes"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.batch: list[int] = []
        self.gone: dict[int, list[Page]] = {}

    def do(self, moment: Moment) -> None:
        verb, request = moment.operation.verb, moment.operation.request
        if verb == "finish" and request in self.tables:
            self.gone[request] = self.tables[request]
        super().do(moment)
        if verb != "finish":
            self.batch, self.gone = list(moment.resident), {}

    def table_read(self, request: int, resident: Sequence[int]) -> list[Page]:
        row = list(resident).index(request)
        stale = self.batch[row] if row < len(self.batch) else request
        return self.gone.get(stale) or self.tables.get(stale) or self.tables[request]
