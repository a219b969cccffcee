"""Blocks of work on all cores. NumPy lets go of the interpreter while it computes, so threads are enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits

__all__ = ["for_each"]

# Elements below which starting threads costs more than they save.
WORTHWHILE = 1 << 20


def for_each(blocks: Sequence[slice], work: Callable[[slice], None], elements: int) -> None:
    """Call `work` for every block, in any order, and return when all are done.

    Args:
        blocks: that do not depend on each other.
        work: what to do with one.
        elements: about how many numbers all of them compute; few are left to one thread.
    """
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, len(blocks))
    if workers < 2 or elements < WORTHWHILE:
        for block in blocks:
            work(block)
        return
    # Products that bring threads of their own would be too many for the cores.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(work, blocks):
            pass  # raises what a block has raised
