"""Native sparse attention in small steps, and its mistakes: which blocks are chosen, by what, and how the branches are joined.

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


# Which blocks are chosen.


class ChoicePerQueryHead(NativeSparse):
    name = "choice-per-query-head"
    explanation = "Every query head chooses blocks of its own, although the heads of a group share the choice (eq. 10)."
    needs, occasional = "h != g and chosen", True

    def grouped(self, importance: Array) -> Array:
        return importance


class ChoiceOfFirstHead(NativeSparse):
    name = "choice-of-first-head"
    explanation = "The first query head of a group chooses for all of it; the importance is not summed over the heads (eq. 10)."
    needs, occasional = "h != g and chosen", True

    def grouped(self, importance: Array) -> Array:
        return np.repeat(self.by_group(importance)[:, :, 0], self.heads // self.groups, axis=1)


class ChoiceOfAllHeads(NativeSparse):
    name = "choice-of-all-heads"
    explanation = "The importance is summed over all query heads, of other groups too."
    needs, occasional = "g > 1 and chosen", True

    def grouped(self, importance: Array) -> Array:
        return np.broadcast_to(importance.sum(axis=1, keepdims=True), importance.shape)


class LogitsSummedOverHeads(NativeSparse):
    name = "importance-of-summed-logits"
    explanation = "The logits of a group's heads are added before the softmax that gives the importance, not its weights (eq. 10)."
    needs, occasional = "h != g and chosen", True

    def evidence(self) -> Array:
        together = np.repeat(self.by_group(self.compressed_logits()).sum(axis=2), self.heads // self.groups, axis=1)
        return self.softmax(together, self.whole())


class ImportanceBeforeSoftmax(NativeSparse):
    name = "importance-before-softmax"
    explanation = "The importance adds up the logits of the compressed blocks, not their softmax weights (eq. 8)."
    needs, occasional = "chosen", True

    def evidence(self) -> Array:
        return np.where(self.whole(), self.compressed_logits(), 0.0)


class ImportanceUnnormalised(NativeSparse):
    name = "importance-not-normalised"
    explanation = "The heads of a group add up weights that are not divided by their sums, so that one head outvotes the others."
    needs, occasional = "h != g and chosen", True

    def evidence(self) -> Array:
        return self.exponentials(np.where(self.whole(), self.compressed_logits(), -np.inf))


class ImportanceSeesFuture(NativeSparse):
    name = "importance-sees-the-future"
    explanation = "The softmax that gives the importance runs over blocks that the query may not see yet."
    needs, occasional = "chosen", True

    def evidence(self) -> Array:
        return self.softmax(self.compressed_logits(), np.array(True))


class OverlapsCountedOnce(NativeSparse):
    name = "overlaps-counted-once"
    explanation = "A compressed block counts once for a selection block however many strides they share (eq. 9 adds it for each)."
    needs, occasional = "compress_block > compress_stride and chosen", True

    def shared(self) -> Array:
        return (super().shared() > 0).astype(self.dtype)


class OverlapsOfStarts(NativeSparse):
    name = "importance-of-blocks-that-start-inside"
    explanation = "A selection block adds up the compressed blocks that start in it; one that reaches in from before is left out."
    needs, occasional = "compress_block > compress_stride and chosen", True

    def shared(self) -> Array:
        inside = self.starts()[:, None] // self.select == np.arange(self.blocks())
        return super().shared() * inside


class OverlapsOfFirst(NativeSparse):
    name = "importance-not-summed-over-overlaps"
    explanation = "A selection block has the importance of the first compressed block in it; the others are not added (eq. 9)."
    needs, occasional = "select_block > compress_stride and chosen", True

    def shared(self) -> Array:
        return (self.starts()[:, None] == np.arange(self.blocks()) * self.select).astype(self.dtype)


class PrintedIndex(NativeSparse):
    name = "printed-index-from-zero"
    explanation = "The index of eq. 9, which counts blocks from 1, is used with blocks counted from 0: all importances are those of \
the block before."
    needs, occasional = "chosen", True

    def shared(self) -> Array:
        per_block, reach = self.select // self.stride, self.block // self.stride
        counts = np.zeros((len(self.starts()), self.blocks()), self.dtype)
        for j in range(self.blocks()):
            for back in (m + n for m in range(per_block) for n in range(reach)):
                if 0 <= j * per_block - back < len(counts):
                    counts[j * per_block - back, j] += 1
        return counts


class OwnBlockMissing(NativeSparse):
    name = "own-block-missing"
    explanation = "Only blocks that lie entirely before the query's own may be chosen, although its own has begun."
    needs = "forced_blocks == 'none'"

    def begun(self) -> Array:
        return np.arange(self.blocks()) < self.last


class TiesToHigherIndex(NativeSparse):
    name = "ties-to-the-higher-index"
    explanation = "Of blocks of equal importance the last ones are chosen, as a sort that is reversed does."
    needs, occasional = "chosen", True

    def order(self, importance: Array) -> Array:
        return np.argsort(importance, axis=-1, kind="stable")[..., ::-1]


class LeastImportant(NativeSparse):
    name = "least-important-chosen"
    explanation = "The blocks of least importance are chosen."
    needs, occasional = "chosen", True

    def order(self, importance: Array) -> Array:
        return np.argsort(np.where(importance > -np.inf, importance, np.inf), axis=-1, kind="stable")


class CountOneShort(NativeSparse):
    name = "select-count-one-short"
    explanation = "One block fewer than select_count is read."
    needs = "blocks >= select_count"
    occasional = True

    def number(self) -> int:
        return self.count - 1


class CountOneLong(NativeSparse):
    name = "select-count-one-long"
    explanation = "One block more than select_count is read."
    needs, occasional = "chosen", True

    def number(self) -> int:
        return self.count + 1


class ForcedOnTop(NativeSparse):
    name = "forced-blocks-on-top"
    explanation = "The forced blocks come on top of select_count chosen ones instead of being among them."
    needs, occasional = "forced_blocks != 'none' and chosen", True

    def free(self) -> Array:
        return np.full((self.length, 1), self.count)


class RaggedDropped(NativeSparse):
    name = "ragged-last-block-dropped"
    explanation = "The last selection block is left out where it is shorter than the others."
    needs = "l % select_block != 0"
    occasional = True

    def blocks(self) -> int:
        return self.length // self.select


class ChoiceOfBlock(NativeSparse):
    name = "choice-of-first-query-in-block"
    explanation = "All queries of a selection block read what its first query chose; each has a choice of its own."
    needs, occasional = "chosen and select_block > 1", True

    def importance(self) -> Array:
        return super().importance()[:, :, (self.last * self.select)[:, 0]]


# What is read of them.


class SelectedNotCausal(NativeSparse):
    name = "selected-keys-not-causal"
    explanation = "All keys of a chosen block are read, those of the query's own block that come after it too."
    needs, occasional = "select_block > 1", True

    def causal(self) -> Array:
        return np.array(True)


class CompressedLate(NativeSparse):
    name = "compressed-block-one-late"
    explanation = "A compressed block is read only by queries behind its last position, not by the one that stands there."
    needs = "summaries > 0"

    def whole(self) -> Array:
        return self.starts() + self.block - 1 < self.position


class CompressedEarly(NativeSparse):
    name = "compressed-block-read-before-its-end"
    explanation = "A compressed block is read by every query behind its start: the summary leaks keys of the future."
    needs = "summaries > 0 and compress_block > 1"

    def whole(self) -> Array:
        return self.starts() <= self.position


class CompressedNotCausal(NativeSparse):
    name = "compressed-not-causal"
    explanation = "All compressed blocks are read by all queries."
    needs = "summaries > 0 and (summaries > 1 or compress_block > 1)"

    def whole(self) -> Array:
        return np.ones((self.length, len(self.starts())), bool)


class StrideIgnored(NativeSparse):
    name = "compressed-blocks-do-not-overlap"
    explanation = "Compressed blocks follow each other without overlap: the stride is taken to be their length."
    needs = "compress_stride < compress_block < l"
    occasional = True

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.stride = self.block

    def shared(self) -> Array:
        shares = np.minimum(self.starts()[:, None] + self.block, (np.arange(self.blocks()) + 1) * self.select)
        return np.maximum(shares - np.maximum(self.starts()[:, None], np.arange(self.blocks()) * self.select), 0).astype(self.dtype)


class SumsForMeans(NativeSparse):
    name = "summaries-are-sums"
    explanation = "Without weights, a summary is the sum of its rows, not their mean."
    needs = "summaries > 0 and compress_block > 1 and compress_weights is None"

    def key_weights(self) -> Array:
        return super().key_weights() * self.block


class WeightsIgnored(NativeSparse):
    name = "compression-weights-ignored"
    explanation = "Summaries are means although weights are given."
    needs = "summaries > 0 and compress_weights is not None"

    def key_weights(self) -> Array:
        return np.full(self.block, 1 / self.block, self.dtype)


class WeightsNormalised(NativeSparse):
    name = "compression-weights-normalised"
    explanation = "The weights of a summary are divided by their sum."
    needs = "summaries > 0 and compress_weights is not None"

    def key_weights(self) -> Array:
        return super().key_weights() / super().key_weights().sum()


class ValuesAveraged(NativeSparse):
    name = "compression-weights-of-keys-only"
    explanation = "The weights summarise the keys; the values are averaged."
    needs = "summaries > 0 and compress_weights is not None"

    def value_weights(self) -> Array:
        return np.full(self.block, 1 / self.block, self.dtype)


class WeightsReversed(NativeSparse):
    name = "compression-weights-reversed"
    explanation = "The first weight meets the last row of a block."
    needs = "summaries > 0 and compress_weights is not None and compress_block > 1"

    def key_weights(self) -> Array:
        return super().key_weights()[::-1]


class WindowShort(NativeSparse):
    name = "window-one-short"
    explanation = "The window holds one key too few."

    def reach(self) -> int:
        return super().reach() - 1


class WindowLong(NativeSparse):
    name = "window-one-long"
    explanation = "The window holds one key too many: `window` before the query's own."
    needs = "l > window + 1"

    def reach(self) -> int:
        return super().reach() + 1


class WindowAhead(NativeSparse):
    name = "window-both-sides"
    explanation = "The window reaches ahead as far as back."
    needs = "l > 1 and window > 1"

    def near(self) -> Array:
        return np.abs(self.position - np.arange(self.length)) < self.reach()


class EmptyCompressedNaN(NativeSparse):
    name = "empty-row-nan"
    explanation = "Queries before the end of the first compressed block get NaN from the softmax over nothing."
    needs = "summaries > 0 and compress_block > 1"

    def normalised(self, weights: Array) -> Array:
        return weights / weights.sum(axis=-1, keepdims=True)


class EmptyCompressedMean(NativeSparse):
    name = "empty-row-mean"
    explanation = "Queries before the end of the first compressed block average all summaries: their logits are a finite sentinel."
    needs = "summaries > 0 and compress_block > 1"

    def compressed_weights(self) -> Array:
        return self.softmax(np.where(self.whole(), self.compressed_logits(), -1e9), np.array(True))
