"""Caches of keys and values in PyTorch: pages read by all requests at once, and rows that a sliding window keeps short.

Slot mapping, block tables and padded batches are those of vLLM's attention kernels: Kwon et al. 2023, arXiv:2309.06180, section 4.
Shapes: k (n, Hkv, D), v (n, Hkv, Dv), queries (n, Hq, D).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from conformance import register

__all__ = ["PagedCache", "SlidingCache"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
PAGES = {"block_size": (16, 1, 2, 3, 4, 8, 64)}


def _weigh(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, scale: float | None) -> Tensor:
    """Attention of padded requests: q (R, L, Hq, D), k (R, S, Hkv, D), hidden (R, L, S) -> (R, L, Hq, Dv)."""
    working = torch.float64 if q.dtype is torch.float64 else torch.float32
    heads, kv_heads, width = q.shape[2], k.shape[2], q.shape[3]
    factor = width**-0.5 if scale is None else scale
    q, k, v = (x.to(working).transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))
    scores = torch.matmul(q * factor, k.transpose(-1, -2)).masked_fill(hidden[:, None], -torch.inf)
    weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(working).min))
    return (torch.matmul(weights, v) / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(working).tiny)).transpose(1, 2)


@register("continuous_batching", backend="torch", name="torch.paged_cache", dtypes=DTYPES, tunables=PAGES,
          description="one padded batch for all requests; a fork copies the partial page at once")  # fmt: skip
class PagedCache:
    """Pages of `block_size` tokens with reference counts; what is written goes through a slot mapping.

    Args:
        num_kv_heads, head_dim, value_dim, dtype, device: of keys and values.
        max_tokens, max_requests: what the pool must have room for.
        block_size: tokens of a page.
        scale: of the logits; 1 / sqrt(D) by default.
        sliding_window: how many of the last tokens are read.
    """

    def __init__(
        self, *, num_kv_heads: int, head_dim: int, value_dim: int, dtype: torch.dtype, device: torch.device, max_tokens: int,
        max_requests: int, block_size: int = 16, scale: float | None = None, sliding_window: int | None = None,
    ) -> None:  # fmt: skip
        self.block_size, self.scale, self.sliding_window, self.device = block_size, scale, sliding_window, device
        blocks = max_tokens // block_size + max_requests
        self.k_pages = torch.zeros((blocks, block_size, num_kv_heads, head_dim), dtype=dtype, device=device)
        self.v_pages = torch.zeros((blocks, block_size, num_kv_heads, value_dim), dtype=dtype, device=device)
        self._count = torch.zeros(blocks, dtype=torch.int64)
        self._tables: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}
        self._host: dict[int, tuple[Tensor, Tensor, int]] = {}

    def append(self, request: int, k: Tensor, v: Tensor) -> None:
        """Scatter tokens into their slots."""
        table, start = self._tables.setdefault(request, []), self._lengths.get(request, 0)
        end = start + len(k)
        table += self._take(-(-end // self.block_size) - len(table))
        position = torch.arange(start, end)
        slots = torch.tensor(table)[position // self.block_size] * self.block_size + position % self.block_size
        self.k_pages.flatten(0, 1)[slots.to(self.device)] = k
        self.v_pages.flatten(0, 1)[slots.to(self.device)] = v
        self._lengths[request] = end

    def attend(self, queries: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """All requests in one batch, padded to the longest table and the most queries."""
        requests, counts = list(queries), [len(q) for q in queries.values()]
        lengths = torch.tensor([self._lengths[request] for request in requests])
        pages = max(len(self._tables[request]) for request in requests)
        tables = torch.tensor([self._tables[request] + [-1] * (pages - len(self._tables[request])) for request in requests])
        place = torch.arange(pages * self.block_size)
        filled = place < lengths[:, None]
        used = tables.clamp(min=0).to(self.device)
        q = torch.nn.utils.rnn.pad_sequence([queries[request] for request in requests], batch_first=True)
        # Positions of padded queries lie behind the last token; their rows are cut off again.
        own = (lengths - torch.tensor(counts))[:, None] + torch.arange(q.shape[1])
        hidden = ~filled[:, None] | (place > own[..., None])
        if self.sliding_window is not None:
            hidden |= place <= own[..., None] - self.sliding_window
        # What lies outside a request may be anything, NaN too, which a weight of zero would not stop.
        outside = ~filled.to(self.device)[..., None, None]
        k = self.k_pages[used].flatten(1, 2).masked_fill(outside, 0)
        v = self.v_pages[used].flatten(1, 2).masked_fill(outside, 0)
        out = _weigh(q, k, v, hidden.to(self.device), self.scale).to(q.dtype)
        return {request: out[row, :count].clone() for row, (request, count) in enumerate(zip(requests, counts, strict=True))}

    def fork(self, parent: int, child: int) -> None:
        """Share the full pages, copy the partial one."""
        table, length = self._tables[parent], self._lengths[parent]
        full = length // self.block_size
        self._count[table[:full]] += 1
        own = self._take(len(table) - full)
        self.k_pages[own], self.v_pages[own] = self.k_pages[table[full:]], self.v_pages[table[full:]]
        self._tables[child], self._lengths[child] = table[:full] + own, length

    def preempt(self, request: int) -> None:
        """Drop the pages; the tokens come again."""
        self._release(request)

    def swap_out(self, request: int) -> None:
        """Move whole pages to another place."""
        table = self._tables[request]
        self._host[request] = self.k_pages[table].clone(), self.v_pages[table].clone(), self._lengths[request]
        self._release(request)

    def swap_in(self, request: int) -> None:
        """Move them back, into other pages."""
        k, v, length = self._host.pop(request)
        table = self._take(len(k))
        self.k_pages[table], self.v_pages[table] = k, v
        self._tables[request], self._lengths[request] = table, length

    def finish(self, request: int) -> None:
        """Give the pages back, unless others still read them."""
        self._host.pop(request, None)
        self._release(request)

    def block_tables(self) -> dict[int, list[int]]:
        """The pages of every resident request."""
        return self._tables

    def free_blocks(self) -> list[int]:
        """The pages that nobody uses."""
        return torch.nonzero(self._count == 0).flatten().tolist()

    def _take(self, count: int) -> list[int]:
        taken = self.free_blocks()[:count]
        if len(taken) < count:
            raise RuntimeError(f"{count} pages are needed, but {len(taken)} are free")
        self._count[taken] = 1
        return taken

    def _release(self, request: int) -> None:
        self._count[self._tables.pop(request, [])] -= 1
        self._lengths.pop(request, None)


@register("continuous_batching", backend="torch", name="torch.sliding_cache", dtypes=DTYPES,
          description="concatenates, and forgets what lies before the sliding window")  # fmt: skip
class SlidingCache:
    """Tokens of each request in one tensor, which is cut to what later queries may still read.

    Args:
        scale: of the logits; 1 / sqrt(D) by default.
        sliding_window: how many of the last tokens are read.
    """

    def __init__(self, *, scale: float | None = None, sliding_window: int | None = None) -> None:
        self.scale, self.sliding_window = scale, sliding_window
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._host: dict[int, tuple[Tensor, Tensor]] = {}

    def append(self, request: int, k: Tensor, v: Tensor) -> None:
        """Concatenate. The first of the new tokens reads one less than the window before itself, so these stay."""
        if request in self._kept:
            before = self._kept[request]
            if self.sliding_window is not None:
                first = max(len(before[0]) - self.sliding_window + 1, 0)
                before = before[0][first:], before[1][first:]
            k, v = torch.cat([before[0], k]), torch.cat([before[1], v])
        self._kept[request] = k.clone(), v.clone()

    def attend(self, queries: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """One request after the other."""
        answers = {}
        for request, q in queries.items():
            k, v = self._kept[request]
            distance = (torch.arange(len(k) - len(q), len(k))[:, None] - torch.arange(len(k))).to(q.device)
            hidden = distance < 0
            if self.sliding_window is not None:
                hidden |= distance >= self.sliding_window
            answers[request] = _weigh(q[None], k[None], v[None], hidden[None], self.scale)[0].to(q.dtype)
        return answers

    def fork(self, parent: int, child: int) -> None:
        """Nothing is written in place, so both may hold the same tensors."""
        self._kept[child] = self._kept[parent]

    def preempt(self, request: int) -> None:
        """Drop the tokens."""
        del self._kept[request]

    def swap_out(self, request: int) -> None:
        """Keep them elsewhere."""
        self._host[request] = self._kept.pop(request)

    def swap_in(self, request: int) -> None:
        """Take them back."""
        self._kept[request] = self._host.pop(request)

    def finish(self, request: int) -> None:
        """Forget them, wherever they are."""
        self._host.pop(request, None)
        self._kept.pop(request, None)
