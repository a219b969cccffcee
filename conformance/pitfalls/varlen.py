"""Mistakes of attention over packed sequences: where one ends, where its queries stand, and what else is read."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.served import Varlen

PACKED = "Krell et al. 2021, section 3.2, arXiv:2107.02027"


class Mispacked(Varlen):
    """A query reads keys of others, or not all of its own, or stands elsewhere."""

    citation: ClassVar[str] = PACKED
    needs = "wrong"


class SequencesMerged(Mispacked):
    name = "sequences-merged"
    explanation = "The cumulative lengths are not looked at: every query reads the keys of all sequences."
    citation = "maxtext#4476"

    def mine(self, queries: Array, keys: Array) -> Array:
        return np.ones(np.broadcast_shapes(queries.shape, keys.shape), bool)


class OneKeyOfNext(Mispacked):
    name = "first-key-of-next-sequence-too"
    explanation = "The end of a sequence is taken as inclusive: its queries read the first key of the next one."

    def mine(self, queries: Array, keys: Array) -> Array:
        last = self.edges("k")[1:]
        number = self.sequence("q", queries)
        return super().mine(queries, keys) | (keys == last[number] if len(last) else False)


class LastKeyLost(Mispacked):
    name = "last-key-of-sequence-lost"
    explanation = "The last key of every sequence is not read: cumulative lengths minus one are taken for ends."

    def mine(self, queries: Array, keys: Array) -> Array:
        return super().mine(queries, keys) & ~np.isin(keys, self.edges("k")[1:] - 1)


class KeysByQueryEdges(Mispacked):
    name = "keys-split-by-query-lengths"
    explanation = "The cumulative lengths of the queries are used for the keys as well."

    def edges(self, name: str) -> Array:
        return super().edges("q")


class QueriesByKeyEdges(Mispacked):
    name = "queries-split-by-key-lengths"
    explanation = "The cumulative lengths of the keys are used for the queries as well."

    def edges(self, name: str) -> Array:
        return super().edges("k")


class KeysStartWithQueries(Mispacked):
    name = "keys-start-at-query-offset"
    explanation = "The keys of a sequence are looked for where its queries begin, as many as it has keys."

    def mine(self, queries: Array, keys: Array) -> Array:
        number, start, length = self.sequence("q", queries), self.edges("q")[:-1], np.diff(self.edges("k"))
        if not len(length):
            return super().mine(queries, keys)
        return (keys >= start[number]) & (keys < (start + length)[number])


class FirstTokenToPrevious(Mispacked):
    name = "first-token-counts-to-previous-sequence"
    explanation = "A token belongs to the last sequence that begins before it, not at it: the first one of each to the one before."

    def sequence(self, name: str, tokens: Array) -> Array:
        return np.maximum(np.searchsorted(self.edges(name), tokens, side="left") - 1, 0)


class EmptySequenceShifts(Mispacked):
    name = "empty-sequence-shifts-the-following"
    explanation = "Empty sequences are left out, those of queries and of keys by themselves: where one side is empty, all after it slip."
    citation = "flash-linear-attention#103"

    def edges(self, name: str) -> Array:
        found, count = np.unique(super().edges(name)), len(super().edges(name))
        return np.concatenate([found, np.repeat(found[-1:], count - len(found))])


class LongestForAll(Mispacked):
    name = "longest-key-length-for-all"
    explanation = "Every sequence has as many keys as the longest: the others read on into what follows them."

    def mine(self, queries: Array, keys: Array) -> Array:
        number, start, longest = self.sequence("q", queries), self.edges("k")[:-1], np.diff(self.edges("k")).max(initial=0)
        return (keys >= start[number]) & (keys < start[number] + longest) if len(start) else super().mine(queries, keys)


class CausalByPackedPosition(Mispacked):
    name = "causal-by-packed-position"
    explanation = "Causality and window compare positions in the packed arrays, aligned at their ends, not those within the sequence."
    needs = "(causal or window is not None) and wrong"

    def positions(self) -> Array:
        return np.arange(self.queries)[:, None] + self.keys - self.queries


class CausalFromFirstKey(Mispacked):
    name = "causal-top-left"
    explanation = "Query i of a sequence stands at its key i instead of at i + Lk - Lq: with a cache in front, it sees only the beginning."
    citation = "pytorch#108108"
    needs = "(causal or window is not None) and causal_alignment == 'bottom-right' and wrong"

    def alignment(self) -> Array:
        return np.zeros_like(super().alignment())


class CausalAlignmentOfLongest(Mispacked):
    name = "alignment-of-longest-sequences"
    explanation = "The difference of the largest lengths, which a kernel is told, aligns every sequence."
    needs = "(causal or window is not None) and causal_alignment == 'bottom-right' and wrong"

    def alignment(self) -> Array:
        longest = [int(np.diff(self.edges(name)).max(initial=0)) for name in "kq"]
        return np.full_like(super().alignment(), longest[0] - longest[1])


class AlignmentOfFirst(Mispacked):
    name = "alignment-of-first-sequence"
    explanation = "The difference of the lengths of the first sequence aligns every one."
    needs = "(causal or window is not None) and causal_alignment == 'bottom-right' and wrong"

    def alignment(self) -> Array:
        alignment = super().alignment()
        return np.repeat(alignment[:1], len(alignment))


class LastSequenceUnwritten(Mispacked):
    name = "last-sequence-unwritten"
    explanation = "The loop over sequences ends one early: the queries of the last one are never written."
    needs = "edges > 1 and l > 0"

    def finished(self, out: Array, lse: Array) -> tuple[Array, Array]:
        written = (np.arange(self.queries) < self.edges("q")[-2])[:, None]
        return super().finished(np.where(written, out, 0.0), np.where(written, lse, 0.0))


class LongSequencesCut(Mispacked):
    name = "keys-beyond-query-length-lost"
    explanation = "A sequence's keys are taken to be as many as its queries: those behind are not read."

    def mine(self, queries: Array, keys: Array) -> Array:
        number, start, length = self.sequence("q", queries), self.edges("k")[:-1], np.diff(self.edges("q"))
        return super().mine(queries, keys) & (keys < (start + length)[number] if len(start) else True)


class PaddingCounts(Mispacked):
    name = "padding-keys-counted"
    explanation = "Sequences are padded to the longest, and the zeros behind the shorter ones take part as keys that score 0."
    needs = "padded"

    def facts(self) -> dict[str, Any]:
        """Those of the call, and whether some sequence has fewer keys than another."""
        return {**super().facts(), "padded": lambda: bool((self.padding() > 0).any())}

    def padding(self) -> Array:
        """How many zeros stand behind the keys of each query's sequence, (Lq, 1)."""
        lengths = np.diff(self.edges("k"))
        number = self.sequence("q", np.arange(self.queries))
        ahead = not self.causal and self.right is None
        return (lengths.max(initial=0) - lengths[number] if ahead and len(lengths) else np.zeros(self.queries, int))[:, None]

    def maximum(self, scores: Array, sink: Array) -> Array:
        return np.where(self.padding() > 0, np.maximum(super().maximum(scores, sink), 0), super().maximum(scores, sink))

    def total(self, weights: Array, sink: Array, shift: Array) -> Array:
        return super().total(weights, sink, shift) + self.padding().astype(self.dtype) * np.exp(-shift)


class ValuesNotCleared(Varlen):
    name = "foreign-values-times-zero"
    explanation = "Values of sequences without queries get a weight of 0 and are multiplied: NaN in them leaks."
    citation = "flash-attention#2374"
    needs = "poisoned"

    def cleared(self, rows: Array, own: Array, name: str) -> Array:
        return rows if name == "v" else super().cleared(rows, own, name)


class KeysNotCleared(Varlen):
    name = "foreign-keys-masked-by-adding"
    explanation = "Keys of other sequences are hidden by adding minus infinity to their logits, which leaves a NaN what it is."
    citation = "Wan2GP#1628"
    needs = "poisoned"

    def cleared(self, rows: Array, own: Array, name: str) -> Array:
        return rows if name == "k" else super().cleared(rows, own, name)

    def masked(self, logits: Array, allowed: Array) -> Array:
        return logits + np.where(allowed, 0.0, -np.inf).astype(self.dtype)
