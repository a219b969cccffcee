"""Mistakes of native sparse attention in the choice of blocks: by what they are ranked, and how many of which are read."""

from __future__ import annotations

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.native_sparse import NativeSparse


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
