"""Attention over several processes, and the blockwise transformer.

`ring_attention` forks its processes itself: each holds some of the tokens, and keys and values go round them through pipes.
Shapes: q (B, Hq, L, D), k (B, Hkv, L, D), v (B, Hkv, L, Dv) -> (B, Hq, L, Dv).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from conformance import register
from conformance.registry import block_sizes, world_sizes, zigzag_orders
from implementations.numpy.logits import Array, Logits, grouped_matmul, working_dtype
from implementations.numpy.softmax import OnlineSoftmax, log_denominator, merge_states, normalised, row_shift, sink_column
from implementations.tiling import tiles

__all__ = ["blockwise_transformer", "ring_attention"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _owners(length: int, processes: int, zigzag: bool) -> list[Array]:
    """The positions of each process's tokens: one chunk, or one from either end."""
    chunks = np.arange(processes * (1 + zigzag) + 1) * length // (processes * (1 + zigzag))
    held = [np.arange(start, stop) for start, stop in pairwise(chunks)]
    return [np.r_[held[rank], held[-1 - rank]] if zigzag else held[rank] for rank in range(processes)]


class _Ring:
    """One process of the ring: what it sends to the next arrives there, however large."""

    def __init__(self, rank: int, pipes: list[tuple[Connection, Connection]]) -> None:
        self.first = rank % 2 == 0  # else all would wait for room in their pipes
        self.following, self.before = pipes[rank][1], pipes[rank - 1][0]

    def pass_on(self, travelling: Any) -> Any:
        """Give to the next process, take from the one before."""
        if self.first:
            self.following.send(travelling)
            return self.before.recv()
        received = self.before.recv()
        self.following.send(travelling)
        return received


def _parts(q: Array, k: Array, v: Array, causal: bool, owners: list[Array], rank: int, ring: _Ring) -> Iterator[tuple[Array, Array]]:
    """Output and logsumexp of this process's queries over the keys that each process holds, as they come by."""
    own, travelling = owners[rank], (k[:, :, owners[rank]], v[:, :, owners[rank]])
    for step in range(len(owners)):
        positions, (keys, values) = owners[rank - step], travelling
        if len(own) and len(positions):
            logits = grouped_matmul(q, keys.astype(q.dtype).swapaxes(2, 3))
            if causal:
                logits = np.where(positions > own[:, None], -np.inf, logits)
            maximum = logits.max(axis=-1, keepdims=True)
            weights = np.exp(logits - row_shift(maximum))
            total = weights.sum(axis=-1, keepdims=True)
            yield normalised(grouped_matmul(weights, values.astype(q.dtype)), total), log_denominator(maximum, total)[..., 0]
        if step < len(owners) - 1:
            travelling = ring.pass_on(travelling)


def _process(
    rank: int, q: Array, k: Array, v: Array, causal: bool, owners: list[Array], pipes: list[tuple[Connection, Connection]], out: Connection
) -> None:
    rows = q[:, :, owners[rank]]
    nothing = np.zeros((*rows.shape[:3], v.shape[3]), q.dtype), np.full(rows.shape[:3], -np.inf, q.dtype)
    out.send(merge_states(_parts(rows, k, v, causal, owners, rank, _Ring(rank, pipes)), nothing)[0])


@register(
    "ring_attention", backend="numpy", name="numpy.ring_attention", dtypes=DTYPES,
    tunables={"world_size": world_sizes, "zigzag": zigzag_orders},
    description="forked processes with pipes in a ring; parts merged by their logsumexps",
)  # fmt: skip
def ring_attention(
    q: Array, k: Array, v: Array, *, causal: bool = False, scale: float | None = None, world_size: int = 2, zigzag: bool = False
) -> Array:
    """Every process computes the outputs of its own queries."""
    dtype, owners, context = working_dtype(q), _owners(q.shape[2], world_size, bool(zigzag)), get_context("fork")
    rows = q.astype(dtype) * dtype.type(q.shape[3] ** -0.5 if scale is None else scale)
    pipes = [context.Pipe(duplex=False) for _ in owners]
    results = [context.Pipe(duplex=False) for _ in owners]
    processes = [
        context.Process(target=_process, args=(rank, rows, k, v, causal, owners, pipes, results[rank][1])) for rank in range(world_size)
    ]
    out = np.empty((*q.shape[:3], v.shape[3]), q.dtype)
    for process, (_, sender) in zip(processes, results, strict=True):
        process.start()
        sender.close()  # so that a process that dies is seen
    for (receiver, _), own in zip(results, owners, strict=True):
        out[:, :, own] = receiver.recv()
        receiver.close()
    for process in processes:
        process.join()
        process.close()
    for pipe in pipes:
        for end in pipe:
            end.close()
    return out


@register(
    "blockwise_transformer", backend="numpy", name="numpy.blockwise_transformer", dtypes=DTYPES,
    tunables={"block_q": block_sizes, "block_k": block_sizes},
    description="each tile of queries is finished, feed-forward included, before the next begins",
)  # fmt: skip
def blockwise_transformer(
    q: Array, k: Array, v: Array, w_in: Array, w_out: Array, *, causal: bool = False, scale: float | None = None, activation: str = "relu",
    block_q: int = 128, block_k: int = 128,
) -> Array:  # fmt: skip
    """Neither all weights nor all inner activations exist at any time."""
    batch, heads, length, width = q.shape
    logits = Logits(q, k, None, None, causal, None, None, scale)
    values = v.astype(logits.dtype, copy=False)
    first, second = w_in.astype(logits.dtype), w_out.astype(logits.dtype)
    out = np.empty((batch, length, heads * width), q.dtype)
    for rows in tiles(slice(0, length), block_q):
        state = OnlineSoftmax((batch, heads, rows.stop - rows.start), width, sink_column(None, logits))
        for keys in tiles(logits.band.keys_of(rows), block_k):
            state.update(logits.tile(rows, keys), values[:, :, keys])
        attended = state.result()[0] + q[:, :, rows].astype(logits.dtype)
        tokens = attended.swapaxes(1, 2).reshape(batch, rows.stop - rows.start, heads * width)
        inner = tokens @ first
        active = np.maximum(inner, 0) if activation == "relu" else inner / (1 + np.exp(-inner))
        out[:, rows] = tokens + active @ second
    return out
