"""Linformer attention in small steps, and the mistakes in them.

Shapes: B batch, H heads, Lq and Lk lengths, Lp projected length, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle.formats import FORMATS

__all__ = ["Linformer"]

CITATION = "Wang et al. 2020, eq. 7, arXiv:2006.04768"
SOFTMAX = "Vaswani et al. 2017, eq. 1, arXiv:1706.03762"


class Linformer(Steps):
    """Linformer attention, as the specification means it."""

    methods = ("linformer_attention",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.q, self.k, self.v, self.e, self.f = (arguments[name] for name in ("q", "k", "v", "e", "f"))
        self.scale = arguments.get("scale")
        self.keys, self.width, self.projected = self.k.shape[2], self.q.shape[3], self.e.shape[0]

    def facts(self) -> dict[str, Any]:
        """Dimensions and options by name, and what follows from them."""
        dims = dict(zip("bhld", self.q.shape, strict=True))
        return {
            **dims, "s": self.keys, "p": self.projected, "w": self.v.shape[3], "scale": self.scale, "factor": Linformer.factor(self),
            "half": self.setting.half, "dtype": self.setting.dtype,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q.size > 0 and self.v.size > 0 and super().applies()

    def lost(self) -> bool:
        """Whether the logits are so large that their own rounding decides the softmax."""
        keys = np.abs(self.e) @ np.abs(self.k)
        largest = np.abs(self.q).max(initial=0.0) * keys.max(initial=0.0) * self.width
        return bool(largest * abs(Linformer.factor(self)) * FORMATS[self.dtype.name].unit_roundoff > 0.05)

    def factor(self) -> float:
        """What the products are multiplied by."""
        return 1 / sqrt(max(self.width, 1)) if self.scale is None else float(self.scale)

    def key_projection(self) -> Array:
        """What projects the keys, (Lp, Lk)."""
        return self.e

    def value_projection(self) -> Array:
        """What projects the values, (Lp, Lk)."""
        return self.f

    def projected_keys(self) -> Array:
        """(B, H, Lp, D)."""
        return self.key_projection() @ self.k

    def projected_values(self) -> Array:
        """(B, H, Lp, Dv)."""
        return self.value_projection() @ self.v

    def logits(self) -> Array:
        """(B, H, Lq, Lp)."""
        return self.q @ self.projected_keys().swapaxes(2, 3) * self.dtype.type(self.factor())

    def maximum(self, logits: Array) -> Array:
        """What is subtracted from the logits."""
        return logits.max(axis=-1, keepdims=True)

    def total(self, weights: Array) -> Array:
        """The denominator."""
        return weights.sum(axis=-1, keepdims=True)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        logits = self.logits()
        weights = np.exp(logits - self.maximum(logits))
        return ((weights @ self.projected_values() / self.total(weights)).astype(self.dtype),)


class ProjectionsSwapped(Linformer):
    name = "projections-swapped"
    explanation = "f projects the keys and e the values."
    citation = CITATION

    def key_projection(self) -> Array:
        return self.f

    def value_projection(self) -> Array:
        return self.e


class FirstProjectionTwice(Linformer):
    name = "key-projection-for-values-too"
    explanation = "e projects the values as well: the variant that shares one projection."
    citation = "Wang et al. 2020, section 4, arXiv:2006.04768"

    def value_projection(self) -> Array:
        return self.e


class SecondProjectionTwice(Linformer):
    name = "value-projection-for-keys-too"
    explanation = "f projects the keys as well: the variant that shares one projection."
    citation = "Wang et al. 2020, section 4, arXiv:2006.04768"

    def key_projection(self) -> Array:
        return self.f


class ProjectionOfWidth(Linformer):
    name = "keys-projected-along-width"
    explanation = "The projection is reshaped to (Lk, Lp) instead of transposed, so that its numbers meet the wrong keys."
    citation = CITATION
    needs = "p > 1 and s > 1"

    def key_projection(self) -> Array:
        return self.e.reshape(self.keys, self.projected).T


class ValuesMisread(Linformer):
    name = "values-projected-by-reshaped-projection"
    explanation = "The projection of the values is reshaped to (Lk, Lp) instead of transposed."
    citation = CITATION
    needs = "p > 1 and s > 1"

    def value_projection(self) -> Array:
        return self.f.reshape(self.keys, self.projected).T


class BothMisread(Linformer):
    name = "projections-reshaped"
    explanation = "Both projections are reshaped to (Lk, Lp) instead of transposed."
    citation = CITATION
    needs = "p > 1 and s > 1"

    def key_projection(self) -> Array:
        return self.e.reshape(self.keys, self.projected).T

    def value_projection(self) -> Array:
        return self.f.reshape(self.keys, self.projected).T


class SquareValuesTransposed(Linformer):
    name = "square-value-projection-transposed"
    explanation = "A projection of the values with as many rows as columns is used transposed."
    citation = CITATION
    needs = "p == s and s > 1"

    def value_projection(self) -> Array:
        return self.f.T


class SquareTransposed(Linformer):
    name = "square-projections-transposed"
    explanation = "Projections with as many rows as columns are used transposed."
    citation = CITATION
    needs = "p == s and s > 1"

    def key_projection(self) -> Array:
        return self.e.T

    def value_projection(self) -> Array:
        return self.f.T


class ProjectionAveraged(Linformer):
    name = "projection-divided-by-length"
    explanation = "The projected keys are divided by the number of keys, as a mean would be."
    citation = CITATION
    needs = "s > 1"

    def projected_keys(self) -> Array:
        return super().projected_keys() / self.keys


class ValuesAveraged(Linformer):
    name = "values-divided-by-length"
    explanation = "The projected values are divided by the number of keys, as a mean would be."
    citation = CITATION
    needs = "s > 1"

    def projected_values(self) -> Array:
        return super().projected_values() / self.keys


class ProjectionSoftmaxed(Linformer):
    name = "projection-softmaxed"
    explanation = "The rows of the projections go through a softmax before they meet the keys and values."
    citation = CITATION

    def key_projection(self) -> Array:
        return softmax(self.e)

    def value_projection(self) -> Array:
        return softmax(self.f)


class ProjectedAfterSoftmax(Linformer):
    name = "projected-after-softmax"
    explanation = "The softmax runs over the keys themselves, and its weights are projected."
    citation = CITATION
    needs = "s > 0"

    def outputs(self) -> tuple[Array, ...]:
        weights = softmax(self.q @ self.k.swapaxes(2, 3) * self.dtype.type(self.factor()))
        return ((weights @ self.e.T @ self.projected_values()).astype(self.dtype),)


class ScaleForgotten(Linformer):
    name = "scale-forgotten"
    explanation = "The logits are not scaled."
    citation = SOFTMAX
    needs = "factor != 1 and factor != 0"

    def factor(self) -> float:
        return 1.0


class ScaleTwice(Linformer):
    name = "scale-twice"
    explanation = "The scale is applied to the queries and again to the logits."
    citation = SOFTMAX
    needs = "factor not in (0, 1)"

    def logits(self) -> Array:
        return super().logits() * self.dtype.type(self.factor())


class ScaleByProjected(Linformer):
    name = "scale-by-projected-length"
    explanation = "The logits are divided by sqrt(Lp) instead of sqrt(D)."
    citation = CITATION
    needs = "scale is None and p != d"

    def factor(self) -> float:
        return 1 / sqrt(self.projected)


class ScaleByWidth(Linformer):
    name = "scale-without-square-root"
    explanation = "The logits are divided by D instead of sqrt(D)."
    citation = SOFTMAX
    needs = "scale is None and d > 1"

    def factor(self) -> float:
        return 1 / self.width


class ScaleIgnored(Linformer):
    name = "scale-option-ignored"
    explanation = "The option `scale` has no effect."
    citation = SOFTMAX
    needs = "scale is not None"

    def factor(self) -> float:
        return 1 / sqrt(self.width)


class NotShifted(Linformer):
    name = "unstable-softmax"
    explanation = "No maximum is subtracted: large logits overflow to inf and NaN."
    citation = "Milakov and Gimelshein 2018, section 2, arXiv:1805.02867"
    occasional = True

    def maximum(self, logits: Array) -> Array:
        return np.zeros_like(logits[..., :1])


class OverQueries(Linformer):
    name = "softmax-over-queries"
    explanation = "The softmax runs over the queries instead of the projected keys."
    citation = "llms-from-scratch-rs#30"
    needs = "p > 1 or l > 1"

    def maximum(self, logits: Array) -> Array:
        return logits.max(axis=2, keepdims=True)

    def outputs(self) -> tuple[Array, ...]:
        logits = self.logits()
        weights = np.exp(logits - self.maximum(logits))
        return ((weights / weights.sum(axis=2, keepdims=True) @ self.projected_values()).astype(self.dtype),)


class NotNormalised(Linformer):
    name = "output-not-normalised"
    explanation = "The division by the sum of the weights is missing."
    citation = SOFTMAX
    needs = "p > 1"

    def total(self, weights: Array) -> Array:
        return np.ones_like(weights[..., :1])


class KeyTailDropped(Linformer):
    name = "key-tail-dropped"
    explanation = "The projections read whole tiles of keys only: those of a last tile that is not full are left out."
    citation = CITATION
    needs = "s > tile and s % tile != 0"
    variants = (16, 32, 64, 128)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "tile": self.tile()}

    def tile(self) -> int:
        return self.setting.tunables.get("block_k") or self.keys

    def applies(self) -> bool:
        return self.keys > 0 and super().applies()

    def projected_keys(self) -> Array:
        kept = self.keys // self.tile() * self.tile()
        return self.e[:, :kept] @ self.k[:, :, :kept]

    def projected_values(self) -> Array:
        kept = self.keys // self.tile() * self.tile()
        return self.f[:, :kept] @ self.v[:, :, :kept]


class ProjectedKeyDropped(Linformer):
    name = "last-projected-key-dropped"
    explanation = "The last projected key takes no part."
    citation = CITATION
    needs = "p > 1"

    def logits(self) -> Array:
        logits = super().logits().copy()
        logits[..., -1] = -np.inf
        return logits


class HeadsShareFirst(Linformer):
    name = "first-heads-keys-for-all"
    explanation = "All heads read the projected keys of the first."
    citation = CITATION
    needs = "h > 1"

    def projected_keys(self) -> Array:
        return np.repeat(super().projected_keys()[:, :1], self.q.shape[1], axis=1)


class SequencesShareFirst(Linformer):
    name = "first-sequences-keys-for-all"
    explanation = "All sequences of the batch read the projected keys of the first."
    citation = CITATION
    needs = "b > 1"

    def projected_keys(self) -> Array:
        return np.repeat(super().projected_keys()[:1], self.q.shape[0], axis=0)


class ComputedInSingle(Linformer):
    name = "computed-in-float32"
    explanation = "Arguments in float64 are computed with in float32 and the result is widened again."
    citation = "NVIDIA/torch-harmonics#204"
    needs = "dtype == 'float64'"

    def logits(self) -> Array:
        return super().logits().astype(np.float32).astype(self.dtype)


def softmax(x: Array) -> Array:
    """Over the last axis."""
    weights = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return weights / weights.sum(axis=-1, keepdims=True)
