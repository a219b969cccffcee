"""Mistakes in the softmax, its precision, the sinks and the logsumexp."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np

from conformance.pitfalls.dense import Array, Reference


class UnstableSoftmax(Reference):
    name = "unstable-softmax"
    explanation = "No maximum is subtracted: large logits overflow to inf and NaN, very negative ones leave a row empty."
    citation = "Milakov and Gimelshein 2018, section 2, arXiv:1805.02867"

    def shift(self, maximum: Array) -> Array:
        return np.zeros_like(maximum)

    def finished(self, out: Array, lse: Array) -> tuple[Array, Array]:
        # A row whose weights all underflowed is divided by zero; only one without keys is guarded.
        underflowed = np.isneginf(lse) & self.allowed().any(axis=-1, keepdims=True)
        return super().finished(np.where(underflowed, np.nan, out), lse)


class ShiftByGlobalMaximum(Reference):
    name = "shift-by-global-maximum"
    explanation = "One maximum of the whole tensor is subtracted everywhere: rows far below it underflow."
    citation = "Hong et al. 2023, section 3, arXiv:2311.01282"
    needs = "b * h * l > 1"

    def maximum(self, scores: Array, sink: Array) -> Array:
        rows = super().maximum(scores, sink)
        return np.full_like(rows, rows.max())


class MaximumStartsAtZero(Reference):
    name = "maximum-starts-at-zero"
    explanation = "The maximum starts at 0 instead of -inf: rows whose logits are all very negative underflow."
    citation = "Milakov and Gimelshein 2018, algorithm 3, arXiv:1805.02867"
    occasional = True

    def maximum(self, scores: Array, sink: Array) -> Array:
        return np.maximum(super().maximum(scores, sink), 0.0)


class MaximumOverHiddenKeys(Reference):
    name = "maximum-over-hidden-keys"
    explanation = "The maximum is taken before the mask: hidden keys with large logits make the visible ones underflow."
    citation = "Milakov and Gimelshein 2018, section 2, arXiv:1805.02867"
    needs = "hidden"

    def maximum(self, scores: Array, sink: Array) -> Array:
        return super().maximum(self.logits(), sink)


class SoftmaxOverQueries(Reference):
    name = "softmax-over-queries"
    explanation = "The softmax runs over the axis of the queries instead of the keys."
    citation = "llms-from-scratch-rs#30"
    methods = ("attention",)

    def maximum(self, scores: Array, sink: Array) -> Array:
        return np.maximum(scores.max(axis=2, keepdims=True), sink)

    def total(self, weights: Array, sink: Array, shift: Array) -> Array:
        return weights.sum(axis=2, keepdims=True) + np.exp(sink - shift)

    def lse(self, total: Array, shift: Array) -> Array:
        return np.zeros((*self.shape[:3], 1), self.dtype)


class SoftmaxOverHeads(Reference):
    name = "softmax-over-heads-and-keys"
    explanation = "One softmax runs over the keys of all heads together."
    citation = "facebookresearch/detr#247"
    needs = "h > 1"

    def maximum(self, scores: Array, sink: Array) -> Array:
        return super().maximum(scores, sink).max(axis=1, keepdims=True)

    def total(self, weights: Array, sink: Array, shift: Array) -> Array:
        heads = super().total(weights, sink, shift)
        return np.broadcast_to(heads.sum(axis=1, keepdims=True), heads.shape)


class OutputNotNormalised(Reference):
    name = "output-not-normalised"
    explanation = "The final division by the sum of the weights is missing."
    citation = "Dao 2023, section 3.1, arXiv:2307.08691"

    def normalised(self, x: Array, total: Array) -> Array:
        return x


class RowSumOfNeighbour(Reference):
    name = "row-sum-of-neighbour"
    explanation = "The reduction of the row's sum spans too many lanes: the sum of the neighbouring row is added."
    citation = "flashinfer#3838"
    needs = "l > 1"

    def total(self, weights: Array, sink: Array, shift: Array) -> Array:
        own = super().total(weights, sink, shift)
        neighbour = np.arange(self.queries) ^ 1
        paired = neighbour < self.queries
        return own + own[:, :, np.where(paired, neighbour, 0)] * paired[:, None]


class SoftmaxInStorage(Reference):
    name = "softmax-in-storage-dtype"
    explanation = "Logits, exponentials, their sum and the quotient are each rounded to the 16 bits of the inputs."
    citation = "pytorch/executorch#20090"
    needs = "half"

    def masked(self, logits: Array, allowed: Array) -> Array:
        return super().masked(self.stored(logits), allowed)

    def exponentials(self, scores: Array, shift: Array) -> Array:
        return self.stored(super().exponentials(scores, shift))

    def total(self, weights: Array, sink: Array, shift: Array) -> Array:
        return self.stored(super().total(weights, sink, shift))

    def normalised(self, x: Array, total: Array) -> Array:
        return self.stored(super().normalised(x, total))


class ComputedInSingle(Reference):
    name = "computed-in-float32"
    explanation = "Arguments in float64 are computed with in float32 and the result is widened again."
    citation = "NVIDIA/torch-harmonics#204"
    needs = "dtype == 'float64'"

    def outputs(self) -> tuple[Array, ...]:
        single = {name: x.astype(np.float32) if getattr(x, "dtype", None) == np.float64 else x for name, x in self.arguments.items()}
        outputs = Reference(single, replace(self.setting, working=np.dtype(np.float32))).outputs()
        return tuple(output.astype(self.dtype) for output in outputs)


class RowSumInStorage(Reference):
    name = "row-sum-in-storage-dtype"
    explanation = "The weights are summed one by one in 16 bits: a long sum stops growing, and the weights add up to more than one."
    citation = "sonos/tract#2586"
    needs = "half and s > 16"

    def total(self, weights: Array, sink: Array, shift: Array) -> Array:
        total = np.broadcast_to(np.exp(sink - shift), shift.shape)
        for key in range(self.keys):
            total = self.stored(total + weights[..., key : key + 1])
        return total


class AccumulatorInStorage(Reference):
    name = "accumulator-in-storage-dtype"
    explanation = "The weighed values are added up in 16 bits, one key after the other."
    citation = "Blanchard et al. 2020, SIAM J. Sci. Comput. 42(3), C124"
    needs = "half and s > 16"

    def gathered(self, weights: Array) -> Array:
        values = self.read_values()
        total = np.zeros((*self.shape[:3], values.shape[3]), self.dtype)
        for key in range(self.keys):
            total = self.stored(total + weights[..., key : key + 1] * values[:, :, key : key + 1])
        return total


class SinksIgnored(Reference):
    name = "sinks-ignored"
    explanation = "The option `sinks` has no effect."
    citation = "modular#6591"
    needs = "sinks is not None"

    def sink(self) -> Array:
        return self.dtype.type(-np.inf)


class SinksIndexedByRow(Reference):
    name = "sinks-indexed-by-row"
    explanation = "The sink's head is the number of the row modulo Hq, right for a single query only."
    citation = "modular#6591"
    needs = "sinks is not None and h > 1 and l > 1"

    def sink(self) -> Array:
        rows = np.arange(self.batch * self.heads * self.queries).reshape(*self.shape[:3], 1)
        return self.sinks[rows % self.heads]


class SinksOfFirstQuery(Reference):
    name = "sinks-on-first-query-only"
    explanation = "Only the first query's denominator gets the sink, as if every call were a decoding step."
    citation = "TensorRT-LLM#15739"
    needs = "sinks is not None and l > 1"

    def sink(self) -> Array:
        return np.where(np.arange(self.queries)[:, None] == 0, super().sink(), -np.inf)


class SinksScaled(Reference):
    name = "sinks-scaled"
    explanation = "The sink is scaled like the products of queries and keys."
    citation = "rocm-libraries#12227"
    needs = "sinks is not None and factor != 1"

    def sink(self) -> Array:
        return super().sink() * self.factor()


class SinksSoftcapped(Reference):
    name = "sinks-softcapped"
    explanation = "The sink goes through the softcap, like the products of queries and keys."
    citation = "rocm-libraries#12229"
    needs = "sinks is not None and softcap is not None"

    def sink(self) -> Array:
        return self.capped(super().sink())


class SinksNotShifted(Reference):
    name = "sinks-not-shifted"
    explanation = "exp(sink) joins a denominator from whose other terms the row's maximum was subtracted."
    citation = "TensorRT-LLM#19220"
    needs = "sinks is not None"

    def maximum(self, scores: Array, sink: Array) -> Array:
        return super().maximum(scores, self.dtype.type(-np.inf))

    def total(self, weights: Array, sink: Array, shift: Array) -> Array:
        return super().total(weights, sink, np.zeros_like(shift))


class SinksOnFirstKey(Reference):
    name = "sinks-added-to-first-key"
    explanation = "The sink is added to the logit of the first key instead of joining the denominator as a logit of its own."
    citation = "vllm#49815"
    needs = "sinks is not None and s > 0"

    def logits(self) -> Array:
        return super().logits() + np.where(np.arange(self.keys) == 0, super().sink(), 0.0)

    def sink(self) -> Array:
        return self.dtype.type(-np.inf)


class SinksInValues(Reference):
    name = "sink-column-dropped-at-wrong-end"
    explanation = "The sink stands first among the weights and the last column is dropped: every weight meets the value of the next key."
    citation = "flash-linear-attention#831"
    needs = "sinks is not None and s > 0"

    def normalised(self, x: Array, total: Array) -> Array:
        weights = super().normalised(x, total)
        return np.concatenate([1 - weights.sum(axis=-1, keepdims=True), weights[..., :-1]], axis=-1)


class LseMistake(Reference):
    """A mistake in the logsumexp only."""

    methods = ("attention_with_lse",)


class LseInBaseTwo(LseMistake):
    name = "lse-in-base-2"
    explanation = "The logarithm of the denominator is returned in base 2."
    citation = "tokenspeed#571"
    needs = "lse_base == 'e'"

    def lse(self, total: Array, shift: Array) -> Array:
        return super().lse(total, shift) / log(2)


class LseWithoutMaximum(LseMistake):
    name = "lse-without-maximum"
    explanation = "The logarithm of the shifted sum is returned; the maximum that was subtracted is not added back."
    citation = "Dao et al. 2022, section 3.1, arXiv:2205.14135"

    def lse(self, total: Array, shift: Array) -> Array:
        return np.log(total)


class LseWithoutSinks(LseMistake):
    name = "lse-without-sinks"
    explanation = "The logsumexp leaves the sink out, although the output's denominator has it."
    citation = "pytorch/torchtitan#2211"
    needs = "sinks is not None"

    def lse(self, total: Array, shift: Array) -> Array:
        scores, nothing = self.scores(), self.dtype.type(-np.inf)
        own_shift = self.shift(self.maximum(scores, nothing))
        return super().lse(self.total(self.exponentials(scores, own_shift), nothing, own_shift), own_shift)


class LseOfCentredKeys(LseMistake):
    name = "lse-of-centred-keys"
    explanation = "The mean key is subtracted from all keys, which leaves the output as it is but moves the logsumexp."
    citation = "ROCm/aiter#3334"
    needs = "softcap is None and s > 0"

    def lse(self, total: Array, shift: Array) -> Array:
        centre = self.read_keys().mean(axis=2, keepdims=True)
        return super().lse(total, shift) - self.scaled(self.q @ centre.swapaxes(2, 3))


class LseOfFirstHeads(LseMistake):
    name = "lse-written-for-first-head-of-group"
    explanation = "Of each group of query heads only the first writes its logsumexp; the others stay zero."
    citation = "cudnn-frontend#1083"
    needs = "h > g and head_map == 'grouped'"

    def lse(self, total: Array, shift: Array) -> Array:
        first = np.arange(self.heads) % (self.heads // self.groups) == 0
        return np.where(first[:, None, None], super().lse(total, shift), 0.0)


class LseOfEmptyRowZero(LseMistake):
    name = "lse-of-empty-row-zero"
    explanation = "The logsumexp of a row without keys is 0 instead of -inf: when parts are merged, the empty one gets weight."
    citation = "flash-attention#2573"
    needs = "empty and sinks is None"

    def lse(self, total: Array, shift: Array) -> Array:
        return np.where(total == 0, 0.0, super().lse(total, shift))


class LseOfEmptyRowInfinite(LseMistake):
    name = "lse-of-empty-row-plus-infinity"
    explanation = "The logsumexp of a row without keys is +inf instead of -inf."
    citation = "flashinfer#3943"
    needs = "empty and sinks is None"

    def lse(self, total: Array, shift: Array) -> Array:
        return np.where(total == 0, np.inf, super().lse(total, shift))
