"""Attention over caches in blocks and over packed sequences, in the steps of dense attention.

What a server hands to a kernel is turned into queries, keys and values side by side with a mask; a mistake is a wrong way of
finding them, or one of the mistakes of dense attention, declared anew for each method here. The mistakes of finding them
stand in the modules `paged` and `varlen`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting, logits, masking, softmax, tiled, windows  # noqa: F401  (they declare the dense mistakes)
from conformance.pitfalls.dense import CONVENTIONS, Array, Reference, declare_dense
from oracle import METHODS

__all__ = ["SERVED", "Paged", "Served", "Varlen"]

OPTIONS = ("scale", "softcap", "window", "causal")

# Dense mistakes that make sense wherever the keys of a query lie.
DENSE_MISTAKES = (
    "heads-interleaved", "heads-first-kv-head", "values-shifted-by-one-key", "scale-twice", "scale-option-twice", "scale-forgotten",
    "scale-option-ignored", "scale-by-width", "scale-by-value-width", "scale-zero-taken-for-default", "scale-reciprocal",
    "scale-after-softmax", "exp2-without-log2e", "logits-in-storage-dtype", "softcap-ignored", "softcap-after-mask",
    "softcap-before-scale", "softcap-as-clamp", "softcap-not-multiplied-back", "mask-multiplies-scores", "mask-then-normalise",
    "empty-row-nan", "unstable-softmax", "shift-by-global-maximum", "maximum-starts-at-zero", "softmax-over-heads-and-keys",
    "output-not-normalised", "softmax-in-storage-dtype", "computed-in-float32", "accumulator-in-storage-dtype",
    "stale-accumulator", "sum-not-rescaled", "rescale-twice", "rescale-inverted", "tail-tile-dropped",
    "window-ignored", "window-left-off-by-one", "window-left-one-too-many", "window-zero-taken-for-none",
)  # fmt: skip

# Those of which keys lie ahead or behind, where there are several queries.
BAND_MISTAKES = (
    "causal-ignored", "causal-ignored-when-windowed", "causal-off-by-one", "causal-sees-one-ahead", "window-ignored-when-causal",
    "window-right-bound-ignored", "window-symmetric", "window-open-side-mirrored", "window-right-off-by-one", "window-right-one-too-many",
    "softmax-over-queries", "row-sum-of-neighbour", "query-tail-unwritten", "diagonal-tile-taken-as-full",
)  # fmt: skip


class Served(Reference):
    """A method of `oracle.serving` as dense attention; see `Reference`.

    Attributes:
        method: name of the method.
        given: the arguments as they were.
    """

    method: ClassVar[str]

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        self.given, self.setting, self.dtype = arguments, setting, setting.working
        kept = {name: arguments[name] for name in (*OPTIONS, *CONVENTIONS) if name in arguments}
        super().__init__({**kept, **self.dense()}, setting)

    def dense(self) -> dict[str, Array]:
        """Queries, keys, values and the mask of the call."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Those of the reference, the method's own dimensions, and whether other keys are read or some are, beside NaN."""
        return {
            **super().facts(), **METHODS[self.method].sizes(self.given), "wrong": lambda: self.is_wrong,
            "poisoned": lambda: bool(np.isnan(self.k).any() or np.isnan(self.v).any()),
            "hidden": lambda: not self.meant.allowed().all(), "empty": lambda: not self.meant.allowed().any(axis=-1).all(),
            "moved": lambda: not np.array_equal(self.meant.allowed(), self.allowed()),
        }  # fmt: skip

    @cached_property
    def meant(self) -> Any:
        """The call without any mistake."""
        return type(self).unmistaken()(self.given, self.setting)

    @cached_property
    def band(self) -> Array:
        """What causality and window leave, without any mistake."""
        return self.meant.within_band()

    @cached_property
    def is_wrong(self) -> bool:
        """Whether the mistake makes some query read something else, or something more or less."""
        right = self.meant
        if self.shape != right.shape or not np.array_equal(self.allowed(), right.allowed()):
            return True
        read = right.allowed().any(axis=(1, 2))[:, None, :, None]  # (B, 1, S, 1)
        return any(bool((read & (own != other)).any()) for own, other in ((self.k, right.k), (self.v, right.v)))


class Paged(Served):
    """Paged attention: one query a sequence, whose keys lie in blocks.

    Attributes:
        unused: which block is read for an entry of -1; -1 for the last one.
    """

    method = "paged_attention"
    methods: ClassVar[tuple[str, ...]] = (method,)
    unused: ClassVar[int] = -1

    def dense(self) -> dict[str, Array]:
        place = np.arange(self.width_of_table() * self.block_size())
        counted = self.counted(place)
        keys, values = (self.cleared(self.rows(name, place), counted, name) for name in ("k_pages", "v_pages"))
        return {"q": self.given["q"][:, :, None], "k": keys, "v": values, "mask": counted[:, None, None]}

    def width_of_table(self) -> int:
        """Entries of a row of the table."""
        return int(self.given["block_table"].shape[1])

    def block_size(self) -> int:
        """Places of a block."""
        return int(self.given["k_pages"].shape[1])

    def table(self, name: str) -> Array:
        """The blocks of each sequence, (B, max_blocks), for keys or for values."""
        return self.given["block_table"]

    def contexts(self) -> Array:
        """How many positions count, (B,)."""
        return self.given["context_lens"]

    def counted(self, place: Array) -> Array:
        """Which positions count, (B, S)."""
        return place < self.contexts()[:, None]

    def entries(self, place: Array) -> Array:
        """Which entry of its row each position is looked up in, (S,)."""
        return place // self.block_size()

    def offsets(self, place: Array) -> Array:
        """Where in its block each position lies, (S,)."""
        return place % self.block_size()

    def pages(self, name: str) -> Array:
        """The cache, (num_blocks, block_size, Hkv, width)."""
        return self.given[name]

    def rows(self, name: str, place: Array) -> Array:
        """What stands at each position, whether it counts or not, (B, Hkv, S, width)."""
        table, pages = self.table(name), self.pages(name)
        blocks = table[:, np.minimum(self.entries(place), max(table.shape[1] - 1, 0))] if table.shape[1] else table
        return pages[np.minimum(np.where(blocks < 0, self.unused, blocks), len(pages) - 1), self.offsets(place)].swapaxes(1, 2)

    def cleared(self, rows: Array, counted: Array, name: str) -> Array:
        """Rows with zeros where no position counts: 0 * NaN is NaN."""
        return np.where(counted[:, None, :, None], rows, 0.0).astype(self.dtype)

    def positions(self) -> Array:
        """Where each query stands, (B, 1, 1, 1)."""
        return (self.contexts() - 1)[:, None, None, None]

    def outputs(self) -> tuple[Array, ...]:
        return (super().outputs()[0][:, :, 0],)


class Varlen(Served):
    """Attention within packed sequences, as that of all tokens side by side under a mask."""

    method = "varlen_attention"
    methods: ClassVar[tuple[str, ...]] = (method,)

    def dense(self) -> dict[str, Array]:
        q, k, v = (self.given[name].swapaxes(0, 1)[None] for name in "qkv")
        own = self.mine(np.arange(q.shape[2])[:, None], np.arange(k.shape[2]))
        keys, values = self.cleared(k, own, "k"), self.cleared(v, own, "v")
        return {"q": q, "k": keys, "v": values, "mask": own[None, None]}

    def cleared(self, rows: Array, own: Array, name: str) -> Array:
        """Rows with zeros where no query of their sequence is: 0 * NaN is NaN."""
        return np.where(own.any(axis=0)[None, None, :, None], rows, 0.0).astype(self.dtype)

    def edges(self, name: str) -> Array:
        """Where each sequence of queries or of keys begins, and the last one ends, (B + 1,)."""
        return self.given[f"cu_seqlens_{name}"]

    def sequence(self, name: str, tokens: Array) -> Array:
        """Number of the sequence of each query or key."""
        return np.searchsorted(self.edges(name), tokens, side="right") - 1

    def mine(self, queries: Array, keys: Array) -> Array:
        """Which keys belong to the sequence of each query, (Lq, Lk)."""
        return self.sequence("q", queries) == self.sequence("k", keys)

    def alignment(self) -> Array:
        """How far behind the first key of its sequence its first query stands, (B,)."""
        if self.conventions["causal_alignment"] == "top-left":
            return np.zeros(len(self.edges("q")) - 1, int)
        return np.diff(self.edges("k")) - np.diff(self.edges("q"))

    def positions(self) -> Array:
        """Where each query stands among all keys, (Lq, 1)."""
        queries = np.arange(self.queries)
        number = self.sequence("q", queries)
        begin = (self.edges("k") - self.edges("q"))[:-1] + self.alignment()
        return (queries + begin[np.clip(number, 0, len(begin) - 1)] if len(begin) else queries)[:, None]

    def outputs(self) -> tuple[Array, ...]:
        return (super().outputs()[0][0].swapaxes(0, 1),)


SERVED: dict[str, type[Served]] = {"paged_attention": Paged, "varlen_attention": Varlen}


declare_dense(Paged, Paged.method, DENSE_MISTAKES)
declare_dense(Varlen, Varlen.method, (*DENSE_MISTAKES, *BAND_MISTAKES))
