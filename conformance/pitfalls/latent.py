"""Latent attention in small steps, and the mistakes in them.

Shapes: B batch, H heads, Lq and Lk lengths, Dn width without position, Dr width with position, R width of the latent row, Dv value width.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle.formats import FORMATS

__all__ = ["Latent"]

CITATION = "DeepSeek-AI 2024, eq. 9-19, arXiv:2405.04434"
SOFTMAX = "Vaswani et al. 2017, eq. 1, arXiv:1706.03762"


class Latent(Steps):
    """Latent attention, as the specification means it, in the naive form."""

    methods = ("latent_attention",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.q_nope, self.q_rope, self.latent, self.k_rope, self.w_uk, self.w_uv = (
            arguments[name] for name in ("q_nope", "q_rope", "c_kv", "k_rope", "w_uk", "w_uv")
        )
        self.scale, self.causal = arguments.get("scale"), arguments.get("causal", False)
        self.batch, self.heads, self.rows, self.width = self.q_nope.shape
        self.columns, self.rank, self.rotated = self.latent.shape[1], self.latent.shape[2], self.q_rope.shape[3]

    def facts(self) -> dict[str, Any]:
        """Dimensions and options by name, and what follows from them."""
        return {
            "b": self.batch, "h": self.heads, "l": self.rows, "s": self.columns, "d": self.width, "r": self.rotated, "c": self.rank,
            "e": self.w_uv.shape[2], "scale": self.scale, "causal": self.causal, "factor": Latent.factor(self),
            "hidden": lambda: not Latent.allowed(self).all(), "dtype": self.setting.dtype, **self.conventions,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q_nope.size > 0 and self.columns > 0 and super().applies()

    def lost(self) -> bool:
        """Whether the logits are so large that their own rounding decides the softmax."""
        keys = np.abs(self.latent).max(initial=0.0) * np.abs(self.w_uk).max(initial=0.0) * self.rank
        largest = np.abs(self.q_nope).max(initial=0.0) * keys * self.width
        largest += np.abs(self.q_rope).max(initial=0.0) * np.abs(self.k_rope).max(initial=0.0) * self.rotated
        return bool(largest * abs(Latent.factor(self)) * FORMATS[self.dtype.name].unit_roundoff > 0.05)

    def factor(self) -> float:
        """What the products are multiplied by."""
        return 1 / sqrt(self.width + self.rotated) if self.scale is None else float(self.scale)

    def key_weights(self) -> Array:
        """From a latent row to the keys of each head, (H, R, Dn)."""
        return self.w_uk

    def value_weights(self) -> Array:
        """From a latent row to the values of each head, (H, R, Dv)."""
        return self.w_uv

    def keys_without_position(self) -> Array:
        """(B, H, Lk, Dn)."""
        return self.latent[:, None] @ self.key_weights()

    def values(self) -> Array:
        """(B, H, Lk, Dv)."""
        return self.latent[:, None] @ self.value_weights()

    def logits_without_position(self) -> Array:
        """(B, H, Lq, Lk)."""
        return self.q_nope @ self.keys_without_position().swapaxes(2, 3)

    def logits_of_position(self) -> Array:
        """(B, H, Lq, Lk)."""
        return self.q_rope @ self.k_rope[:, None].swapaxes(2, 3)

    def logits(self) -> Array:
        """Both parts, scaled."""
        return (self.logits_without_position() + self.logits_of_position()) * self.dtype.type(self.factor())

    def allowed(self) -> Array:
        """Which keys a query may read, (Lq, Lk)."""
        start = self.columns - self.rows if self.conventions["causal_alignment"] == "bottom-right" else 0
        return (np.arange(self.columns) - np.arange(self.rows)[:, None] - start <= 0) | (not self.causal)

    def maximum(self, scores: Array) -> Array:
        """What is subtracted from the scores."""
        largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        return np.where(np.isfinite(largest), largest, 0.0)

    def total(self, weights: Array) -> Array:
        """The denominator."""
        return weights.sum(axis=-1, keepdims=True)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        scores = np.where(self.allowed(), self.logits(), -np.inf)
        weights = np.exp(scores - self.maximum(scores))
        total = self.total(weights)
        return ((weights @ self.values() / np.where(total == 0, 1, total)).astype(self.dtype),)


class PositionForgotten(Latent):
    name = "rope-part-forgotten"
    explanation = "The logits lack the part that carries the position."
    citation = CITATION

    def logits_of_position(self) -> Array:
        return np.zeros_like(super().logits_of_position())


class PositionTwice(Latent):
    name = "rope-part-counted-twice"
    explanation = "The part that carries the position is added twice."
    citation = CITATION

    def logits_of_position(self) -> Array:
        return 2 * super().logits_of_position()


class PositionPerHead(Latent):
    name = "rope-part-counted-per-head"
    explanation = "The part that carries the position is added once for every head, as the keys of position are shared."
    citation = CITATION
    needs = "h > 1"

    def logits_of_position(self) -> Array:
        return self.heads * super().logits_of_position()


class PositionSummedOverHeads(Latent):
    name = "rope-part-summed-over-heads"
    explanation = "The part that carries the position is summed over the heads, which share its keys."
    citation = CITATION
    needs = "h > 1"

    def logits_of_position(self) -> Array:
        part = super().logits_of_position()
        return np.broadcast_to(part.sum(axis=1, keepdims=True), part.shape)


class PositionOfFirstHead(Latent):
    name = "rope-queries-of-first-head"
    explanation = "All heads use the rotated queries of the first."
    citation = CITATION
    needs = "h > 1"

    def logits_of_position(self) -> Array:
        part = super().logits_of_position()
        return np.broadcast_to(part[:, :1], part.shape)


class PositionNotScaled(Latent):
    name = "rope-part-not-scaled"
    explanation = "The scale is applied to the part without position only."
    citation = CITATION
    needs = "factor != 1"

    def logits(self) -> Array:
        return self.logits_without_position() * self.dtype.type(self.factor()) + self.logits_of_position()


class ContentForgotten(Latent):
    name = "nope-part-forgotten"
    explanation = "The logits lack the part without position."
    citation = CITATION

    def logits_without_position(self) -> Array:
        return np.zeros_like(super().logits_without_position())


class ContentNotScaled(Latent):
    name = "nope-part-not-scaled"
    explanation = "The scale is applied to the part with position only."
    citation = CITATION
    needs = "factor != 1"

    def logits(self) -> Array:
        return self.logits_without_position() + self.logits_of_position() * self.dtype.type(self.factor())


class ScaleWithoutPosition(Latent):
    name = "scale-by-nope-width"
    explanation = "The logits are divided by sqrt(Dn) instead of sqrt(Dn + Dr)."
    citation = CITATION
    needs = "scale is None"

    def factor(self) -> float:
        return 1 / sqrt(self.width)


class ScaleByLatent(Latent):
    name = "scale-by-latent-width"
    explanation = "The logits are divided by sqrt(R + Dr), the width of the absorbed queries."
    citation = CITATION
    needs = "scale is None and c != d"

    def factor(self) -> float:
        return 1 / sqrt(self.rank + self.rotated)


class ScaleForgotten(Latent):
    name = "scale-forgotten"
    explanation = "The logits are not scaled."
    citation = SOFTMAX
    needs = "factor != 1"

    def factor(self) -> float:
        return 1.0


class ScaleTwice(Latent):
    name = "scale-twice"
    explanation = "The scale is applied to the queries and again to the logits."
    citation = SOFTMAX
    needs = "factor not in (0, 1)"

    def factor(self) -> float:
        return super().factor() ** 2


class ScaleIgnored(Latent):
    name = "scale-option-ignored"
    explanation = "The option `scale` has no effect."
    citation = SOFTMAX
    needs = "scale is not None"

    def factor(self) -> float:
        return 1 / sqrt(self.width + self.rotated)


class KeysOfFirstHead(Latent):
    name = "key-weights-of-first-head"
    explanation = "All heads expand their keys by the weights of the first."
    citation = CITATION
    needs = "h > 1"

    def key_weights(self) -> Array:
        return np.broadcast_to(self.w_uk[:1], self.w_uk.shape)


class KeysOfNextHead(Latent):
    name = "key-weights-of-next-head"
    explanation = "Each head expands its keys by the weights of the next."
    citation = CITATION
    needs = "h > 1"

    def key_weights(self) -> Array:
        return np.roll(self.w_uk, -1, axis=0)


class ValuesOfFirstHead(Latent):
    name = "value-weights-of-first-head"
    explanation = "All heads expand their values by the weights of the first."
    citation = CITATION
    needs = "h > 1"

    def value_weights(self) -> Array:
        return np.broadcast_to(self.w_uv[:1], self.w_uv.shape)


class ValuesOfNextHead(Latent):
    name = "value-weights-of-next-head"
    explanation = "Each head expands its values by the weights of the next."
    citation = CITATION
    needs = "h > 1"

    def value_weights(self) -> Array:
        return np.roll(self.w_uv, -1, axis=0)


class WeightsSwapped(Latent):
    name = "key-and-value-weights-swapped"
    explanation = "Keys are expanded by the values' weights and values by the keys'."
    citation = CITATION
    needs = "d == e"

    def key_weights(self) -> Array:
        return self.w_uv

    def value_weights(self) -> Array:
        return self.w_uk


class KeyWeightsReshaped(Latent):
    name = "key-weights-reshaped"
    explanation = "The keys' weights are reshaped to (H, Dn, R) and transposed, so that their numbers meet the wrong latent elements."
    citation = CITATION
    needs = "c > 1 and d > 1"

    def key_weights(self) -> Array:
        return np.swapaxes(self.w_uk.reshape(self.heads, self.width, self.rank), 1, 2)


class ValueWeightsReshaped(Latent):
    name = "value-weights-reshaped"
    explanation = "The values' weights are reshaped to (H, Dv, R) and transposed, so that their numbers meet the wrong latent elements."
    citation = CITATION
    needs = "c > 1 and e > 1"

    def value_weights(self) -> Array:
        return np.swapaxes(self.w_uv.reshape(self.heads, -1, self.rank), 1, 2)


class HeadsMixed(Latent):
    name = "weights-split-inside-heads"
    explanation = "The weights of all heads as one matrix (R, H Dn) are split with the heads innermost."
    citation = CITATION
    needs = "h > 1 and d > 1"

    def key_weights(self) -> Array:
        joined = np.moveaxis(self.w_uk, 0, 1).reshape(self.rank, self.width, self.heads)
        return np.moveaxis(joined, 2, 0)


class ValuesNotExpanded(Latent):
    name = "latent-rows-as-values"
    explanation = "The weights are applied to the latent rows themselves, which are never expanded to values."
    citation = CITATION
    needs = "c == e"

    def values(self) -> Array:
        return self.latent[:, None]


class CausalIgnored(Latent):
    name = "causal-ignored"
    explanation = "The option `causal` is ignored."
    citation = SOFTMAX
    needs = "hidden"

    def allowed(self) -> Array:
        return np.ones((self.rows, self.columns), bool)


class CausalTopLeft(Latent):
    name = "causal-top-left"
    explanation = "The causal mask is aligned with the first key instead of the last."
    citation = "Dao-AILab/flash-attention, version 2.1: causal alignment"
    needs = "causal and l != s and causal_alignment == 'bottom-right'"

    def allowed(self) -> Array:
        return np.arange(self.columns) <= np.arange(self.rows)[:, None]


class CausalExclusive(Latent):
    name = "causal-excludes-own-position"
    explanation = "A query does not read the key at its own position."
    citation = SOFTMAX
    needs = "causal"

    def allowed(self) -> Array:
        start = self.columns - self.rows if self.conventions["causal_alignment"] == "bottom-right" else 0
        return np.arange(self.columns) < np.arange(self.rows)[:, None] + start


class FirstSequence(Latent):
    name = "latent-rows-of-first-sequence"
    explanation = "All sequences of the batch read the latent rows of the first."
    citation = CITATION
    needs = "b > 1"

    def keys_without_position(self) -> Array:
        return np.repeat(super().keys_without_position()[:1], self.batch, axis=0)

    def values(self) -> Array:
        return np.repeat(super().values()[:1], self.batch, axis=0)


class NotShifted(Latent):
    name = "unstable-softmax"
    explanation = "No maximum is subtracted: large logits overflow to inf and NaN."
    citation = "Milakov and Gimelshein 2018, section 2, arXiv:1805.02867"
    occasional = True

    def maximum(self, scores: Array) -> Array:
        return np.zeros_like(scores[..., :1])


class NotNormalised(Latent):
    name = "output-not-normalised"
    explanation = "The division by the sum of the weights is missing."
    citation = SOFTMAX
    needs = "s > 1"

    def total(self, weights: Array) -> Array:
        return np.ones_like(weights[..., :1])


class KeyTailDropped(Latent):
    name = "tail-tile-dropped"
    explanation = "The keys of a last tile that is not full are left out."
    citation = "Dao 2023, section 3.1, arXiv:2307.08691"
    needs = "s > tile and s % tile != 0"
    variants = (16, 32, 64, 128)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "tile": self.tile()}

    def tile(self) -> int:
        return self.setting.tunables.get("block_k") or max(self.columns, 1)

    def allowed(self) -> Array:
        return super().allowed() & (np.arange(self.columns) < self.columns // self.tile() * self.tile())


class ComputedInSingle(Latent):
    name = "computed-in-float32"
    explanation = "Arguments in float64 are computed with in float32 and the result is widened again."
    citation = "NVIDIA/torch-harmonics#204"
    needs = "dtype == 'float64'"

    def logits(self) -> Array:
        return super().logits().astype(np.float32).astype(self.dtype)
