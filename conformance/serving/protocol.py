"""What a cache of keys and values must be able to do to be judged, and what it may do besides.

A class, not an instance, is judged: each case makes its own. A request is an integer, which may come again once it has finished.
Arrays are those of the backend. The parameters of ``__init__`` say what the cache wants to know, by name:

| parameter | meaning |
|---|---|
| ``num_kv_heads``, ``head_dim``, ``value_dim`` | heads and widths of keys and values |
| ``dtype``, ``device`` | of the arrays; a device for torch alone |
| ``max_requests``, ``max_tokens`` | requests at the same time, and tokens of all of them together, at most |
| ``scale``, ``sliding_window`` | the options of the method, where the cache supports them |
| ``block_size`` and what else is declared as a tunable | drawn by the fuzzer |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["REQUIRED", "KVCache", "PagedKVCache"]

Array = Any  # an array of the backend

REQUIRED = ("append", "attend", "finish")


class KVCache(Protocol):
    """The keys and values of requests that come, grow and leave.

    Besides these it may have ``fork(parent, child)``, ``preempt(request)``, ``swap_out(request)`` and ``swap_in(request)``; a cache
    without them is judged without them, and the certificate says so. A preempted request comes back by an `append` of all its
    tokens. The arguments of a call are the caller's: a cache that keeps them must copy them.
    """

    def append(self, request: int, k: Array, v: Array) -> None:
        """Add tokens to a request, which is new if it is not known: k (n, Hkv, D) and v (n, Hkv, Dv), n >= 1."""

    def attend(self, queries: Mapping[int, Array]) -> Mapping[int, Array]:
        """Attention of the newest tokens of several requests, each over its own tokens up to itself.

        Args:
            queries: of the last n tokens of each request, (n, Hq, D): n is 1, or as many as the last `append` to it brought.

        Returns:
            For each request (n, Hq, Dv), which is the caller's from then on: later calls must leave it as it is.
        """

    def finish(self, request: int) -> None:
        """Forget a request, be it resident, preempted or swapped out."""


class PagedKVCache(KVCache, Protocol):
    """A cache in pages that shows who owns them, so that they can be counted after each operation, and free ones poisoned.

    Attributes:
        block_size: tokens of a page.
        k_pages, v_pages: the pages, along the first axis. May be missing: then free pages are not poisoned with NaN.
    """

    block_size: int
    k_pages: Array
    v_pages: Array

    def block_tables(self) -> Mapping[int, Sequence[int]]:
        """The pages of every resident request, by number and in order; an entry of -1 is none."""

    def free_blocks(self) -> Collection[int]:
        """The pages that nobody uses."""

    # May be missing: ``kept_blocks()``, pages that are neither free nor used, such as a null page or those kept for later requests.
