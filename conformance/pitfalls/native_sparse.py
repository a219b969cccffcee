"""Native sparse attention in small steps, each of which a mistake can override.

The mistakes stand in `native_sparse_choice`, `native_sparse_reads` and `native_sparse_gates`.

Shapes: B batch, Hq query heads, Hkv key/value heads, R = Hq / Hkv, L length, n compressed blocks, m selection blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle import METHODS

__all__ = ["NativeSparse"]

METHOD = "native_sparse_attention"
NSA = "Yuan et al. 2025, arXiv:2502.11089"
CONVENTIONS = {name: values[0] for name, values in METHODS[METHOD].conventions.items()}


class NativeSparse(Steps):
    """What the specification means, in the working dtype of a kernel."""

    methods: ClassVar[tuple[str, ...]] = (METHOD,)
    citation: ClassVar[str] = NSA

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.conventions = {name: arguments.get(name, default) for name, default in CONVENTIONS.items()}
        self.q, self.k, self.v, self.gates = (arguments[name] for name in ("q", "k", "v", "gates"))
        self.block, self.stride, self.select = (arguments[name] for name in ("compress_block", "compress_stride", "select_block"))
        self.count, self.window, self.scale = arguments["select_count"], arguments["window"], arguments.get("scale")
        self.given_weights = arguments.get("compress_weights")
        self.batch, self.heads, self.length, self.width = self.q.shape
        self.groups = self.k.shape[1]
        self.position = np.arange(self.length)[:, None]

    def facts(self) -> dict[str, Any]:
        """Dimensions, options and conventions by name, and what follows from them."""
        summaries = max(self.length - self.block + self.stride, 0) // self.stride
        return {
            **{name: self.arguments.get(name) for name in (*METHODS[METHOD].options, "compress_weights")}, **self.conventions,
            "b": self.batch, "h": self.heads, "g": self.groups, "l": self.length, "d": self.width, "e": self.v.shape[3],
            "summaries": summaries, "blocks": -(-self.length // self.select), "dtype": self.setting.dtype,
            "chosen": lambda: bool((self.begun().sum(axis=-1) > self.count).any()), "factor": NativeSparse.factor(self),
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q.size > 0 and self.v.size > 0 and super().applies()

    def lost(self) -> bool:
        """Whether the logits are so large that their own rounding decides the softmax."""
        return bool(np.abs(self.logits()).max(initial=0.0) > 1e4)

    # Logits and softmax.

    def factor(self) -> float:
        """What the products are multiplied by."""
        return 1 / sqrt(self.width) if self.scale is None else float(self.scale)

    def compressed_factor(self) -> float:
        """The same, in the compressed branch."""
        return self.factor()

    def kv_heads(self) -> Array:
        """Which key/value head each query head reads, (Hq,)."""
        return np.arange(self.heads) // (self.heads // self.groups)

    def read(self, x: Array) -> Array:
        """Keys or values as the query heads read them."""
        return x[:, self.kv_heads()]

    def logits(self) -> Array:
        """Of all queries and keys, (B, Hq, L, L)."""
        return self.q @ self.read(self.k).swapaxes(2, 3) * self.dtype.type(self.factor())

    def exponentials(self, scores: Array) -> Array:
        """Numerators of the softmax."""
        largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        return np.exp(scores - np.where(np.isfinite(largest), largest, 0.0))

    def normalised(self, weights: Array) -> Array:
        """The softmax, zeros in a row without keys."""
        total = weights.sum(axis=-1, keepdims=True)
        return weights / np.where(total == 0, 1.0, total).astype(self.dtype)

    def softmax(self, logits: Array, allowed: Array) -> Array:
        """Weights of the allowed keys."""
        return self.normalised(self.exponentials(np.where(allowed, logits, -np.inf)))

    # The compressed branch.

    def starts(self) -> Array:
        """First positions of the compressed blocks, (n,)."""
        return np.arange(0, max(self.length - self.block + 1, 0), self.stride)

    def key_weights(self) -> Array:
        """What the rows of a block of keys are weighed with, (compress_block,)."""
        return np.full(self.block, 1 / self.block, self.dtype) if self.given_weights is None else self.given_weights

    def value_weights(self) -> Array:
        """The same of values."""
        return self.key_weights()

    def summaries(self, x: Array, weights: Array) -> Array:
        """(B, Hkv, n, width)."""
        rows = x[:, :, self.starts()[:, None] + np.arange(self.block)]
        return np.einsum("bgnld,l->bgnd", rows, weights)

    def compressed_logits(self) -> Array:
        """Of queries and summaries, (B, Hq, L, n)."""
        keys = self.read(self.summaries(self.k, self.key_weights()))
        return self.q @ keys.swapaxes(2, 3) * self.dtype.type(self.compressed_factor())

    def whole(self) -> Array:
        """Which compressed blocks a query reads, (L, n)."""
        return self.starts() + self.block - 1 <= self.position

    def compressed_weights(self) -> Array:
        """Their weights."""
        return self.softmax(self.compressed_logits(), self.whole())

    def compressed(self) -> Array:
        """The branch, (B, Hq, L, Dv)."""
        return self.compressed_weights() @ self.read(self.summaries(self.v, self.value_weights()))

    # The choice of blocks.

    def blocks(self) -> int:
        """How many selection blocks there are."""
        return -(-self.length // self.select)

    def begun(self) -> Array:
        """Which blocks a query may choose, (L, m)."""
        return np.arange(self.blocks()) * self.select <= self.position

    def forced(self) -> Array:
        """Which of them it reads in any case."""
        if self.conventions["forced_blocks"] == "none":
            return np.zeros((self.length, self.blocks()), bool)
        own, number = self.position // self.select, np.arange(self.blocks())
        return ((number == 0) | (number == own) | (number == own - 1)) & self.begun()

    def shared(self) -> Array:
        """How often each compressed block counts for each selection block, (n, m)."""
        first, begin = np.arange(len(self.starts()))[:, None], np.arange(self.blocks()) * (self.select // self.stride)
        last, end = first + self.block // self.stride, begin + self.select // self.stride
        return np.maximum(np.minimum(last, end) - np.maximum(first, begin), 0).astype(self.dtype)

    def evidence(self) -> Array:
        """What is added up over the compressed blocks, (B, Hq, L, n)."""
        return self.compressed_weights()

    def grouped(self, importance: Array) -> Array:
        """From the importance for each query head to that by which each chooses, (B, Hq, L, m)."""
        return np.repeat(self.by_group(importance).sum(axis=2), self.heads // self.groups, axis=1)

    def by_group(self, x: Array) -> Array:
        """(B, Hq, ...) -> (B, Hkv, R, ...)."""
        return x.reshape(self.batch, self.groups, self.heads // self.groups, *x.shape[2:])

    def importance(self) -> Array:
        """Of every block for every query head, (B, Hq, L, m)."""
        return self.grouped(self.evidence() @ self.shared())

    def number(self) -> int:
        """How many blocks a query reads."""
        return self.count

    def order(self, importance: Array) -> Array:
        """Blocks, the first to choose first; what may not be chosen has an importance of minus infinity."""
        return np.argsort(-importance, axis=-1, kind="stable")

    def members(self) -> Array:
        """The blocks that a query reads, bool (B, Hq, L, m)."""
        forced, begun = self.forced(), self.begun()
        ranked = np.where(begun & ~forced, self.importance(), -np.inf)
        rank = np.argsort(self.order(ranked), axis=-1)
        return forced | (begun & (rank < self.free()))

    def free(self) -> Array:
        """How many blocks a query chooses besides the forced ones, (L, 1)."""
        return np.maximum(self.number() - self.forced().sum(axis=-1, keepdims=True), 0)

    def causal(self) -> Array:
        """Which keys of the chosen blocks are read, (L, L)."""
        return np.arange(self.length) <= self.position

    def tokens(self) -> Array:
        """The selected keys, (B, Hq, L, L)."""
        spread = np.repeat(self.members(), self.select, axis=-1)[..., : self.length]
        missing = self.length - spread.shape[-1]
        return np.pad(spread, [(0, 0)] * 3 + [(0, missing)]) & self.causal()

    # The window, and the branches together.

    def reach(self) -> int:
        """Keys of the window."""
        return self.window + (self.conventions["window_bounds"] == "reach")

    def near(self) -> Array:
        """The keys of the window, (L, L)."""
        behind = self.position - np.arange(self.length)
        return (behind >= 0) & (behind < self.reach())

    def gate(self) -> Array:
        """What the branches are multiplied by, (B, Hq, L, 3)."""
        return self.gates

    def branches(self) -> tuple[Array, Array, Array]:
        """Compressed, selected, windowed: (B, Hq, L, Dv) each."""
        logits, values = self.logits(), self.read(self.v)
        return self.compressed(), self.softmax(logits, self.tokens()) @ values, self.softmax(logits, self.near()) @ values

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        gate = self.gate()
        return (sum(gate[..., c : c + 1] * branch for c, branch in enumerate(self.branches())),)

    @cached_property
    def last(self) -> Array:
        """Number of the block in which each query stands, (L, 1)."""
        return self.position // self.select
