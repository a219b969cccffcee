"""A cache of keys and values in small steps, each of which a mistake can override: see `cache_pages` and `cache_reads`.

A page is a list of token numbers, so what a query reads is a list of them too, whatever the pages hold: -1 for memory that was
never written or was freed, which the harness fills with NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle.operations import Moment, parse_operations, play, rows

__all__ = ["BATCHING", "NOTHING", "USUAL_PAGE", "Cache", "CacheMistake", "Page"]

BATCHING = "Yu et al. 2022, section 4 (Orca, OSDI 22)"

NOTHING = -1

# The size of a page where neither the implementation nor a variant says one.
USUAL_PAGE = 16

Page = list[int]


class Cache(Steps):
    """A cache in pages that does everything right, on token numbers.

    Attributes:
        tables: the pages of every resident request, in order. Requests that share a page share the list.
        lengths: how many tokens each holds.
    """

    methods: ClassVar[tuple[str, ...]] = ("continuous_batching",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        self.arguments, self.setting, self.dtype, self.conventions = arguments, setting, setting.working, {}
        self.q, self.k, self.v = (arguments[name] for name in "qkv")
        self.scale: float | None = arguments.get("scale")
        self.window: Any = arguments.get("sliding_window")
        self.block = setting.tunables.get("block_size", USUAL_PAGE)
        self.tables: dict[int, list[Page]] = {}
        self.lengths: dict[int, int] = {}
        self.elsewhere: dict[int, tuple[list[Page], int]] = {}

    def facts(self) -> dict[str, Any]:
        """Sizes, and what happens in the script."""
        verbs = {operation.verb for operation in parse_operations(self.arguments["operations"])}
        return {
            "h": self.q.shape[1], "g": self.k.shape[1], "d": self.q.shape[2], "scale": self.scale, "sliding_window": self.window,
            "forks": "fork" in verbs, "swaps": "swap_in" in verbs, "preempts": "resume" in verbs, "finishes": "finish" in verbs,
            "grows": "grow" in verbs, "most_tokens": max(len(row.tokens) for row in rows(self.arguments["operations"])),
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q.size > 0 and self.v.size > 0 and super().applies()

    def lost(self) -> bool:
        """Whether the numbers are so large that rounding decides the outputs."""
        asked = [row.tokens[-1] for row in rows(self.arguments["operations"])]
        with np.errstate(all="ignore"):
            return not bool(np.isfinite(self.scores(asked)).all())

    def factor(self) -> float:
        """What logits are multiplied by."""
        return 1 / sqrt(self.q.shape[2]) if self.scale is None else float(self.scale)

    def keys_of_heads(self, x: Array) -> Array:
        """What each query head reads of keys or values, (n, Hq, width)."""
        return np.repeat(x, self.q.shape[1] // x.shape[1], axis=1)

    def page(self) -> Page:
        """A new page."""
        return [NOTHING] * self.block

    def shared(self, page: Page) -> bool:
        """Whether several requests have the last page of one; they have it at the same place of their tables, as forks have a prefix."""
        place = next(len(table) - 1 for table in self.tables.values() if table and table[-1] is page)
        return sum(len(table) > place and table[place] is page for table in self.tables.values()) > 1

    def append(self, request: int, tokens: Sequence[int]) -> None:
        """Write tokens behind those that are there."""
        table, written = self.tables.setdefault(request, []), 0
        self.lengths.setdefault(request, 0)
        while written < len(tokens):
            page, slot = divmod(self.lengths[request], self.block)
            if slot == 0:
                table.append(self.page())
            elif self.shared(table[-1]):
                table[-1] = list(table[-1])
            part = tokens[written : written + self.block - slot]
            table[page][slot : slot + len(part)] = part
            self.lengths[request] += len(part)
            written += len(part)

    def grow(self, request: int, tokens: Sequence[int]) -> None:
        """Write tokens of a request that is there."""
        self.append(request, tokens)

    def fork(self, parent: int, child: int) -> None:
        """Share the pages."""
        self.tables[child], self.lengths[child] = list(self.tables[parent]), self.lengths[parent]

    def release(self, table: Iterable[Page]) -> None:
        """Free the pages that nobody else has; they are poisoned."""
        others = {id(page) for other in self.tables.values() for page in other}
        for page in table:
            if id(page) not in others:
                page[:] = [NOTHING] * len(page)

    def preempt(self, request: int) -> None:
        """Drop the tokens."""
        table = self.tables.pop(request)
        del self.lengths[request]
        self.release(table)

    def resume(self, request: int, history: Sequence[int]) -> None:
        """Write all tokens again."""
        self.append(request, history)

    def swap_out(self, request: int) -> None:
        """Copy the pages elsewhere."""
        table = self.tables.pop(request)
        self.elsewhere[request] = [list(page) for page in table], self.lengths.pop(request)
        self.release(table)

    def swap_in(self, request: int) -> None:
        """Bring the pages back."""
        self.tables[request], self.lengths[request] = self.elsewhere.pop(request)

    def finish(self, request: int) -> None:
        """Forget a request, wherever it is."""
        self.elsewhere.pop(request, None)
        self.lengths.pop(request, None)
        self.release(self.tables.pop(request, []))

    def table_read(self, request: int, resident: Sequence[int]) -> list[Page]:
        """The pages that a request reads."""
        return self.tables[request]

    def held(self, request: int, resident: Sequence[int]) -> list[int]:
        """The tokens that a request finds in its pages."""
        flat = [token for page in self.table_read(request, resident) for token in page]
        return (flat + [NOTHING] * self.lengths[request])[: self.lengths[request]]

    def read(self, held: list[int], later: int, newest: int) -> list[int]:
        """The tokens that a query reads which so many of its request's `newest` follow."""
        return self.in_window(held[: len(held) - later])

    def in_window(self, tokens: list[int]) -> list[int]:
        """Those within the sliding window."""
        return tokens if self.window is None else tokens[-self.window :]

    def do(self, moment: Moment) -> None:
        """One operation."""
        verb, request = moment.operation.verb, moment.operation.request
        if verb == "join":
            self.append(request, moment.fed)
        elif verb == "grow":
            self.grow(request, moment.fed)
        elif verb == "resume":
            self.resume(request, moment.histories[request])
        elif verb == "fork":
            assert moment.operation.number is not None, "a fork names the copy"
            self.fork(request, moment.operation.number)
        else:
            getattr(self, verb)(request)

    def outputs(self) -> tuple[Array, ...]:
        """The operations in order, then every query at once."""
        queries, reads = [], []
        for moment in play(parse_operations(self.arguments["operations"])):
            self.do(moment)
            for request in moment.resident:
                newest, held = moment.newest(request), self.held(request, moment.resident)
                for later in range(newest - 1, -1, -1):
                    queries.append(moment.histories[request][-1 - later])
                    reads.append(self.read(held, later, newest))
        return (self.attend(queries, reads),)

    def scores(self, queries: Sequence[int]) -> Array:
        """Logits of some queries and all tokens, (Hq, rows, n)."""
        return np.einsum("rhd,nhd->hrn", self.q[list(queries)], self.keys_of_heads(self.k)) * self.dtype.type(self.factor())

    def attend(self, queries: Sequence[int], reads: Sequence[Sequence[int]]) -> Array:
        """Attention of queries over the tokens that each reads, as often as it does: (rows, Hq, Dv)."""
        times = np.zeros((len(queries), len(self.q)), self.dtype)
        poisoned = np.array([NOTHING in tokens for tokens in reads], dtype=bool)
        for row, tokens in enumerate(reads):
            np.add.at(times[row], [token for token in tokens if token != NOTHING], 1)
        scores = np.where(times > 0, self.scores(queries), -np.inf)
        top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isfinite(top), top, 0)) * times
        total = weights.sum(axis=-1, keepdims=True)
        out = np.einsum("hrn,nhe->rhe", weights / np.where(total == 0, 1, total), self.keys_of_heads(self.v))
        return np.where(poisoned[:, None, None], np.nan, out).astype(self.dtype)


class CacheMistake(Cache):
    """A cache that does something wrong, which few scripts bring out."""

    occasional = True
