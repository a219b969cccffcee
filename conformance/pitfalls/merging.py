"""Mistakes in joining attention over parts of the keys: split-K, ring attention, cascades."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import log
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Reference, Steps
from conformance.pitfalls.tiled import Tiled

MERGING = ("merge_attention_states",)
WITH_LSE = ("attention_with_lse", "merge_attention_states")


class Part(Tiled):
    """Attention over some of the keys only; a sink belongs to the first part."""

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.splits = setting.tunables.get("num_splits", 0)
        if self.splits:
            edges = {self.keys * part // self.splits for part in range(self.splits + 1)}  # a split without keys does nothing
        else:
            edges = {*range(0, self.keys, self.tile or 1), self.keys}
        self.edges = sorted(edges) if self.keys else [0, 0]

    def facts(self) -> dict[str, Any]:
        """Those of a tiled kernel, and the number of parts that hold keys."""
        return {**super().facts(), "n": len(self.edges) - 1, "overlap": False}

    def applies(self) -> bool:
        """Whether the mistake can show on this call: splits need no tile."""
        return Reference.applies(self) if self.splits else super().applies()

    def slices(self) -> list[slice]:
        """The keys of each part."""
        return [slice(start, stop) for start, stop in pairwise(self.edges)]


class RoundedPart(Part):
    """A part whose end is moved to a multiple of the tile."""

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.tile > 0 and super().applies()

    def facts(self) -> dict[str, Any]:
        """Those of a part, and whether parts overlap now."""
        return {**super().facts(), "overlap": self.slices() != super().slices()}

    def slices(self) -> list[slice]:
        """The keys of each part."""
        ends = [min(keys.stop + (keys.start - keys.stop) % self.tile, self.keys) for keys in super().slices()]
        return [slice(keys.start, end) for keys, end in zip(super().slices(), ends, strict=True)]


class Merge(Steps):
    """Parts, each normalised by itself, joined by their logsumexps (Dao et al. 2022, section 3.1, arXiv:2205.14135).

    As a mistake of `merge_attention_states` it takes the parts as they come, as one of `attention` it makes them: as many
    as the tunable num_splits says, or else one for each tile.
    """

    methods: ClassVar[tuple[str, ...]] = ("attention", *WITH_LSE)
    variants: ClassVar[tuple[int, ...]] = Tiled.variants
    part: ClassVar[type[Part]] = Part

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.whole = self.part(arguments, setting) if "q" in arguments else None

    def facts(self) -> dict[str, Any]:
        """Those of the attention, or of the parts that are given."""
        if self.whole is not None:
            return self.whole.facts()
        lses = self.arguments["lses"]
        dims = dict(zip("nbhl", lses.shape, strict=True))
        return {**self.conventions, **dims, "empty": bool(np.isneginf(lses).all(axis=0).any())}

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        if self.whole is not None:
            return self.whole.applies() and super().applies()
        return self.arguments["lses"].size > 0 and super().applies()

    def parts(self) -> tuple[Array, Array]:
        """Outputs (N, B, H, L, Dv) and natural logsumexps (N, B, H, L, 1) of the parts."""
        if self.whole is None:
            lses = self.arguments["lses"][..., None]
            return self.arguments["outs"], lses if self.conventions["lse_base"] == "e" else lses * log(2)
        return self.computed_parts(self.whole)

    def computed_parts(self, whole: Part) -> tuple[Array, Array]:
        """The parts of an attention."""
        scores, values = whole.scores(), whole.read_values()
        outs, lses = [], []
        for number, keys in enumerate(whole.slices()):
            sink = self.sink_of_part(number, whole.sink())
            shift = whole.shift(whole.maximum(scores[..., keys], sink))
            weights = whole.exponentials(scores[..., keys], shift)
            total = whole.total(weights, sink, shift)
            outs.append(whole.normalised(weights, total) @ values[:, :, keys])
            lses.append(whole.lse(total, shift))
        return np.stack(outs), np.stack(lses)

    def sink_of_part(self, number: int, sink: Array) -> Array:
        """The sink as a part sees it."""
        return sink if number == 0 else np.full_like(sink, -np.inf)

    def shift(self, lses: Array) -> Array:
        """What is subtracted from the logsumexps."""
        highest = lses.max(axis=0)
        return np.where(np.isneginf(highest), 0.0, highest)

    def weights(self, lses: Array, shift: Array) -> Array:
        """How much each part counts."""
        return np.exp(lses - shift)

    def joined(self, outs: Array, weights: Array) -> Array:
        """The outputs of the parts, weighed."""
        total = weights.sum(axis=0)
        return (weights * outs).sum(axis=0) / np.where(total == 0, 1.0, total)

    def joined_lse(self, lses: Array, weights: Array, shift: Array) -> Array:
        """The logsumexp of all parts."""
        return np.log(weights.sum(axis=0)) + shift

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        outs, lses = self.parts()
        shift = self.shift(lses)
        weights = self.weights(lses, shift)
        out, lse = self.joined(outs, weights), self.joined_lse(lses, weights, shift)
        return (out, self.in_declared_base(lse[..., 0])) if self.whole is None else self.whole.finished(out, lse)


class SplitsAveraged(Merge):
    name = "splits-averaged"
    explanation = "The parts are averaged, as if each held the same share of the weight."
    citation = "zhuzilin/ring-flash-attention#20"
    needs = "n > 1"

    def joined(self, outs: Array, weights: Array) -> Array:
        return outs.mean(axis=0)


class SplitsNotNormalised(Merge):
    name = "splits-not-normalised"
    explanation = "The weighed parts are added up without dividing by the sum of their weights."
    citation = "Dao 2023, section 3.1, arXiv:2307.08691"
    needs = "n > 1"

    def joined(self, outs: Array, weights: Array) -> Array:
        return (weights * outs).sum(axis=0)


class SplitsInBaseTwo(Merge):
    name = "splits-merged-in-base-2"
    explanation = "Natural logsumexps are merged with powers of two: large parts get too little weight."
    citation = "sglang#40903"
    needs = "n > 1 and lse_base == 'e'"

    def weights(self, lses: Array, shift: Array) -> Array:
        return np.exp2(lses - shift)

    def joined_lse(self, lses: Array, weights: Array, shift: Array) -> Array:
        return np.log2(weights.sum(axis=0)) + shift


class LastSplitOnly(Merge):
    name = "last-split-only"
    explanation = "Each part overwrites the one before: the last part is returned."
    citation = "Liu et al. 2023, section 3, arXiv:2310.01889"
    needs = "n > 1"

    def parts(self) -> tuple[Array, Array]:
        outs, lses = super().parts()
        return outs[-1:], lses[-1:]


class LseOfLastSplit(Merge):
    name = "lse-of-last-split"
    explanation = "The output is that of all parts, but the logsumexp is that of the last tile or split."
    citation = "flashinfer#58"
    methods = WITH_LSE
    needs = "n > 1"

    def joined_lse(self, lses: Array, weights: Array, shift: Array) -> Array:
        return lses[-1]


class LsesAdded(Merge):
    name = "split-lses-added"
    explanation = "The logsumexps of the parts are added up."
    citation = "zhuzilin/ring-flash-attention#20"
    methods = WITH_LSE
    needs = "n > 1"

    def joined_lse(self, lses: Array, weights: Array, shift: Array) -> Array:
        return lses.sum(axis=0)


class LseOfLargestSplit(Merge):
    name = "lse-of-largest-split"
    explanation = "The logsumexp returned is the largest of the parts': the sum of the weights is left out."
    citation = "Dao et al. 2022, section 3.1, arXiv:2205.14135"
    methods = WITH_LSE
    needs = "n > 1"

    def joined_lse(self, lses: Array, weights: Array, shift: Array) -> Array:
        return lses.max(axis=0)


class MergedWithoutMaximum(Merge):
    name = "splits-merged-without-maximum"
    explanation = "The weights are exp(lse) without a maximum subtracted: they overflow, or all vanish."
    citation = "Milakov and Gimelshein 2018, section 2, arXiv:1805.02867"
    methods = MERGING
    needs = "n > 0"

    def shift(self, lses: Array) -> Array:
        return np.zeros_like(lses[0])


class MergedMaximumFromZero(Merge):
    name = "splits-maximum-starts-at-zero"
    explanation = "The maximum of the logsumexps starts at 0: parts whose logsumexps are all very negative vanish."
    citation = "Milakov and Gimelshein 2018, algorithm 3, arXiv:1805.02867"
    methods = MERGING
    occasional = True

    def shift(self, lses: Array) -> Array:
        return np.maximum(lses.max(axis=0), 0.0)


class EmptySplitsNan(Merge):
    name = "empty-splits-nan"
    explanation = "Where all parts are empty, (-inf) - (-inf) makes the result NaN."
    citation = "flash-attention commit 26d7d92f"
    methods = MERGING
    needs = "n > 0 and empty"

    def shift(self, lses: Array) -> Array:
        return lses.max(axis=0)


class EmptySplitsLseZero(Merge):
    name = "empty-splits-lse-zero"
    explanation = "Where all parts are empty, the logsumexp is 0 instead of -inf: the next merge gives the nothing weight."
    citation = "flashinfer#440"
    methods = MERGING
    needs = "n > 0 and empty"

    def joined_lse(self, lses: Array, weights: Array, shift: Array) -> Array:
        total = weights.sum(axis=0)
        return np.where(total == 0, 0.0, super().joined_lse(lses, weights, shift))


class SinkInEverySplit(Merge):
    name = "sink-counted-per-tile"
    explanation = "The sink joins the denominator once for every tile or split of the keys."
    citation = "rocm-libraries#12227"
    methods = ("attention", "attention_with_lse")
    needs = "n > 1 and sinks is not None"

    def sink_of_part(self, number: int, sink: Array) -> Array:
        return sink


class SplitRoundedUp(Merge):
    name = "split-rounded-up-to-tile"
    explanation = "A split that is no multiple of the tile reads on to the end of its last tile: keys of the next split count twice."
    citation = "flashinfer#1206"
    methods = ("attention", "attention_with_lse")
    needs = "n > 1 and overlap"
    part = RoundedPart
