"""Mistakes within one of the two maps of differential attention: its scale, what it may read, its heads, its softmax, its tiles."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.differential import CITATION, FIRST, SECOND, SOFTMAX, Differential

__all__: list[str] = []


class SecondScaleForgotten(Differential):
    name = "second-map-not-scaled"
    explanation = "The scale is applied to the first map only."
    citation = CITATION
    needs = "factor != 1 and lam != 0"

    def factor(self, which: int) -> float:
        return super().factor(which) if which == FIRST else 1.0


class ScaleForgotten(Differential):
    name = "scale-forgotten"
    explanation = "The logits are not scaled."
    citation = SOFTMAX
    needs = "factor != 1"

    def factor(self, which: int) -> float:
        return 1.0


class ScaleTwice(Differential):
    name = "scale-twice"
    explanation = "The scale is applied to the queries and again to the logits."
    citation = SOFTMAX
    needs = "factor not in (0, 1)"

    def factor(self, which: int) -> float:
        return super().factor(which) ** 2


class ScaleIgnored(Differential):
    name = "scale-option-ignored"
    explanation = "The option `scale` has no effect."
    citation = SOFTMAX
    needs = "scale is not None"

    def factor(self, which: int) -> float:
        return 1 / sqrt(self.width)


class ScaleByBoth(Differential):
    name = "scale-by-both-widths"
    explanation = "The logits are divided by sqrt(2 D), the width of a head that holds both maps."
    citation = CITATION
    needs = "scale is None"

    def factor(self, which: int) -> float:
        return 1 / sqrt(2 * self.width)


class CausalIgnored(Differential):
    name = "causal-ignored"
    explanation = "The option `causal` is ignored."
    citation = SOFTMAX
    needs = "hidden"

    def allowed(self, which: int) -> Array:
        return np.ones((self.rows, self.columns), bool)


class SecondMapSeesFuture(Differential):
    name = "second-map-not-causal"
    explanation = "Causality hides keys from the first map only."
    citation = CITATION
    needs = "hidden and lam != 0"

    def allowed(self, which: int) -> Array:
        return super().allowed(which) | (which == SECOND)


class CausalTopLeft(Differential):
    name = "causal-top-left"
    explanation = "The causal mask is aligned with the first key instead of the last."
    citation = "Dao-AILab/flash-attention, version 2.1: causal alignment"
    needs = "causal and l != s and causal_alignment == 'bottom-right'"

    def allowed(self, which: int) -> Array:
        return np.arange(self.columns) <= np.arange(self.rows)[:, None]


class HeadsInterleaved(Differential):
    name = "heads-interleaved"
    explanation = "Query head h reads key/value head h % Hkv instead of h // (Hq // Hkv)."
    citation = "Ainslie et al. 2023, section 2, arXiv:2305.13245"
    needs = "1 < g < h"

    def kv_heads(self, which: int) -> Array:
        return np.arange(self.heads) % self.groups


class SecondHeadsInterleaved(Differential):
    name = "second-map-heads-interleaved"
    explanation = "In the second map query head h reads key head h % Hkv."
    citation = "Ainslie et al. 2023, section 2, arXiv:2305.13245"
    needs = "1 < g < h and lam != 0"

    def kv_heads(self, which: int) -> Array:
        return super().kv_heads(which) if which == FIRST else np.arange(self.heads) % self.groups


class SharedMaximum(Differential):
    name = "second-map-shifted-by-first-maximum"
    explanation = "The maximum of the first map is subtracted in both: where the second is larger its exponentials overflow."
    citation = "Milakov and Gimelshein 2018, section 2, arXiv:1805.02867"
    needs = "lam != 0"
    occasional = True

    def maximum(self, which: int) -> Array:
        return super().maximum(FIRST)


class NotShifted(Differential):
    name = "unstable-softmax"
    explanation = "No maximum is subtracted: large logits overflow to inf and NaN."
    citation = "Milakov and Gimelshein 2018, section 2, arXiv:1805.02867"
    occasional = True

    def maximum(self, which: int) -> Array:
        return np.zeros((1, 1, 1, 1), self.dtype)


class ComputedInSingle(Differential):
    name = "computed-in-float32"
    explanation = "Arguments in float64 are computed with in float32 and the result is widened again."
    citation = "NVIDIA/torch-harmonics#204"
    needs = "dtype == 'float64'"

    def logits(self, which: int) -> Array:
        return super().logits(which).astype(np.float32).astype(self.dtype)


class KeyTailDropped(Differential):
    name = "tail-tile-dropped"
    explanation = "The keys of a last tile that is not full are left out."
    citation = "Dao 2023, section 3.1, arXiv:2307.08691"
    needs = "s > tile and s % tile != 0"
    variants = (16, 32, 64, 128)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "tile": self.tile()}

    def tile(self) -> int:
        return self.setting.tunables.get("block_k") or max(self.columns, 1)

    def allowed(self, which: int) -> Array:
        return super().allowed(which) & (np.arange(self.columns) < self.columns // self.tile() * self.tile())


class SecondKeyTailDropped(KeyTailDropped):
    name = "second-tail-tile-dropped"
    explanation = "The second map leaves out the keys of a last tile that is not full."
    citation = "Dao 2023, section 3.1, arXiv:2307.08691"
    needs = "s > tile and s % tile != 0 and lam != 0"

    def allowed(self, which: int) -> Array:
        return super().allowed(which) if which == SECOND else Differential.allowed(self, which)
