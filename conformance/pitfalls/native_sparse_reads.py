"""Mistakes of native sparse attention in what is read: summaries of blocks, the keys of chosen blocks, and the window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array
from conformance.pitfalls.native_sparse import NativeSparse


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
