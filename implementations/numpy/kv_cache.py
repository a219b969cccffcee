"""Caches of keys and values in NumPy: in pages that requests share until they write, and in one row for each request.

Pages with reference counts, copy-on-write and swapping: Kwon et al. 2023, arXiv:2309.06180, section 4. Shapes: k (n, Hkv, D),
v (n, Hkv, Dv), queries (n, Hq, D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from conformance import register
from implementations.numpy.logits import Array, working_dtype

__all__ = ["ContiguousCache", "PagedCache"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
PAGES = {"block_size": (16, 1, 2, 3, 4, 8, 64)}


def _attend(q: Array, k: Array, v: Array, scale: float | None, window: int | None) -> Array:
    """The newest n tokens over all of their request, a key/value head and its queries at a time: (n, Hq, Dv)."""
    dtype = working_dtype(q)
    count, heads, width = q.shape
    kv_heads = k.shape[1]
    factor = width**-0.5 if scale is None else scale
    position = np.arange(len(k) - count, len(k))[:, None]
    hidden = np.arange(len(k))[None] > position
    if window is not None:
        hidden |= np.arange(len(k))[None] <= position - window
    grouped = q.astype(dtype).reshape(count, kv_heads, heads // kv_heads, width) * dtype.type(factor)
    out = np.empty((count, kv_heads, heads // kv_heads, v.shape[2]), dtype)
    for head in range(kv_heads):
        scores = np.einsum("nrd,sd->rns", grouped[:, head], k[:, head].astype(dtype))
        scores = np.where(hidden, dtype.type(-np.inf), scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, head] = np.einsum("rns,se->nre", weights / weights.sum(axis=-1, keepdims=True), v[:, head].astype(dtype))
    return out.reshape(count, heads, v.shape[2]).astype(q.dtype)


@dataclass
class _Request:
    """The pages of a request, in order, and how many tokens they hold."""

    table: list[int] = field(default_factory=list)
    length: int = 0


@register("continuous_batching", backend="numpy", name="numpy.paged_cache", dtypes=DTYPES, tunables=PAGES,
          description="pages with reference counts, copied at the first write after a fork")  # fmt: skip
class PagedCache:
    """Pages of `block_size` tokens; a fork shares all of them, and whoever writes into a shared page first gets a copy.

    Args:
        num_kv_heads, head_dim, value_dim, dtype: of keys and values.
        max_tokens, max_requests: what the pool must have room for.
        block_size: tokens of a page.
        scale: of the logits; 1 / sqrt(D) by default.
        sliding_window: how many of the last tokens are read.
    """

    def __init__(
        self, *, num_kv_heads: int, head_dim: int, value_dim: int, dtype: np.dtype, max_tokens: int, max_requests: int,
        block_size: int = 16, scale: float | None = None, sliding_window: int | None = None,
    ) -> None:  # fmt: skip
        self.block_size, self.scale, self.sliding_window = block_size, scale, sliding_window
        blocks = max_tokens // block_size + 2 * max_requests + 1
        self.k_pages = np.zeros((blocks, block_size, num_kv_heads, head_dim), dtype)
        self.v_pages = np.zeros((blocks, block_size, num_kv_heads, value_dim), dtype)
        self._free, self._owners = list(range(blocks)), [0] * blocks
        self._requests: dict[int, _Request] = {}
        self._swapped: dict[int, tuple[Array, Array]] = {}

    def append(self, request: int, k: Array, v: Array) -> None:
        """Write tokens into the last page and as many new ones as they need."""
        held = self._requests.setdefault(request, _Request())
        written = 0
        while written < len(k):
            slot = held.length % self.block_size
            if slot == 0:
                held.table.append(self._take())
            elif self._owners[held.table[-1]] > 1:
                held.table[-1] = self._copy(held.table[-1])
            count = min(self.block_size - slot, len(k) - written)
            block = held.table[-1]
            self.k_pages[block, slot : slot + count] = k[written : written + count]
            self.v_pages[block, slot : slot + count] = v[written : written + count]
            held.length += count
            written += count

    def attend(self, queries: Mapping[int, Array]) -> dict[int, Array]:
        """Gather the pages of each request."""
        answers = {}
        for request, q in queries.items():
            k, v = self._gather(self._requests[request])
            answers[request] = _attend(q, k, v, self.scale, self.sliding_window)
        return answers

    def fork(self, parent: int, child: int) -> None:
        """Share all pages."""
        held = self._requests[parent]
        for block in held.table:
            self._owners[block] += 1
        self._requests[child] = _Request(list(held.table), held.length)

    def preempt(self, request: int) -> None:
        """Drop the pages; the tokens come again."""
        self._release(self._requests.pop(request))

    def swap_out(self, request: int) -> None:
        """Keep a copy of the tokens elsewhere."""
        held = self._requests.pop(request)
        self._swapped[request] = self._gather(held)
        self._release(held)

    def swap_in(self, request: int) -> None:
        """Bring them back into pages of its own."""
        self.append(request, *self._swapped.pop(request))

    def finish(self, request: int) -> None:
        """Give the pages back, unless others still read them."""
        self._swapped.pop(request, None)
        self._release(self._requests.pop(request, _Request()))

    def block_tables(self) -> dict[int, list[int]]:
        """The pages of every resident request."""
        return {request: held.table for request, held in self._requests.items()}

    def free_blocks(self) -> list[int]:
        """The pages that nobody uses."""
        return self._free

    def _take(self) -> int:
        block = self._free.pop()
        self._owners[block] = 1
        return block

    def _copy(self, block: int) -> int:
        self._owners[block] -= 1
        own = self._take()
        self.k_pages[own], self.v_pages[own] = self.k_pages[block], self.v_pages[block]
        return own

    def _release(self, held: _Request) -> None:
        for block in held.table:
            self._owners[block] -= 1
            if self._owners[block] == 0:
                self._free.append(block)

    def _gather(self, held: _Request) -> tuple[Array, Array]:
        k, v = (pages[held.table].reshape(-1, *pages.shape[2:])[: held.length] for pages in (self.k_pages, self.v_pages))
        return k, v


@register("continuous_batching", backend="numpy", name="numpy.contiguous_cache", dtypes=DTYPES,
          description="a row for each request, which doubles when it is full")  # fmt: skip
class ContiguousCache:
    """A row of tokens for each request, with room for more.

    Args:
        scale: of the logits; 1 / sqrt(D) by default.
        sliding_window: how many of the last tokens are read.
    """

    def __init__(self, *, scale: float | None = None, sliding_window: int | None = None) -> None:
        self.scale, self.sliding_window = scale, sliding_window
        self._rows: dict[int, tuple[Array, Array]] = {}
        self._lengths: dict[int, int] = {}

    def append(self, request: int, k: Array, v: Array) -> None:
        """Write behind the last token, in a row twice as long where it does not fit."""
        start = self._lengths.get(request, 0)
        end = start + len(k)
        if request not in self._rows or end > len(self._rows[request][0]):
            rows = [np.zeros((2 * end, *x.shape[1:]), x.dtype) for x in (k, v)]
            for row, old in zip(rows, self._rows.get(request, ()), strict=False):
                row[:start] = old[:start]
            self._rows[request] = rows[0], rows[1]
        for row, x in zip(self._rows[request], (k, v), strict=True):
            row[start:end] = x
        self._lengths[request] = end

    def attend(self, queries: Mapping[int, Array]) -> dict[int, Array]:
        """Each request over the filled part of its row."""
        answers = {}
        for request, q in queries.items():
            k, v = (row[: self._lengths[request]] for row in self._rows[request])
            answers[request] = _attend(q, k, v, self.scale, self.sliding_window)
        return answers

    def fork(self, parent: int, child: int) -> None:
        """Copy the row."""
        k, v = self._rows[parent]
        self._rows[child], self._lengths[child] = (k.copy(), v.copy()), self._lengths[parent]

    def preempt(self, request: int) -> None:
        """Drop the row."""
        self.finish(request)

    def finish(self, request: int) -> None:
        """Drop the row."""
        self._rows.pop(request, None)
        self._lengths.pop(request, None)
