"""Latent attention in small steps, and the mistakes in them.

Shapes: B batch, H heads, Lq and Lk lengths, Dn width without position, Dr width with position, R width of the latent row, Dv value width.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from conformance.pitfalls import Setting, logits, masking, softmax, tiled  # noqa: F401  (they declare the dense mistakes)
from conformance.pitfalls.dense import CONVENTIONS, OPTIONS, Array, Reference, declare_dense

__all__ = ["Latent"]

CITATION = "DeepSeek-AI 2024, eq. 9-19, arXiv:2405.04434"

DENSE_MISTAKES = (
    "scale-forgotten", "scale-twice", "scale-option-ignored", "causal-ignored", "causal-top-left", "unstable-softmax",
    "output-not-normalised", "tail-tile-dropped", "computed-in-float32",
)  # fmt: skip


class Latent(Reference):
    """Latent attention in the naive form: dense attention whose queries and keys have both parts side by side.

    Attributes:
        given: the arguments as they were.
    """

    methods = ("latent_attention",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        self.given = arguments
        self.latent, self.w_uk, self.w_uv = (arguments[name] for name in ("c_kv", "w_uk", "w_uv"))
        queries, positions = (arguments[name] for name in ("q_nope", "q_rope"))
        self.content, self.rotated, self.rank = queries.shape[3], positions.shape[3], self.latent.shape[2]
        rows = self.latent[:, None]
        shared = np.broadcast_to(arguments["k_rope"][:, None], (*rows.shape[:1], self.w_uk.shape[0], *arguments["k_rope"].shape[1:]))
        keys = np.concatenate([rows @ self.key_weights(), shared], axis=3)
        kept = {name: arguments[name] for name in (*OPTIONS, *CONVENTIONS) if name in arguments}
        dense = {"q": np.concatenate([queries, positions], axis=3), "k": keys, "v": rows @ self.value_weights()}
        super().__init__({**kept, **dense}, setting)

    def facts(self) -> dict[str, Any]:
        """Those of the reference, and the method's own dimensions."""
        return {**super().facts(), "d": self.content, "r": self.rotated, "c": self.rank, "e": self.w_uv.shape[2]}

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.keys > 0 and super().applies()

    def key_weights(self) -> Array:
        """From a latent row to the keys of each head, (H, R, Dn)."""
        return self.w_uk

    def value_weights(self) -> Array:
        """From a latent row to the values of each head, (H, R, Dv)."""
        return self.w_uv

    def products_without_position(self) -> Array:
        """(B, H, Lq, Lk)."""
        return self.q[..., : self.content] @ self.read_keys()[..., : self.content].swapaxes(2, 3)

    def products_of_position(self) -> Array:
        """(B, H, Lq, Lk)."""
        return self.q[..., self.content :] @ self.read_keys()[..., self.content :].swapaxes(2, 3)

    def products(self) -> Array:
        """Of queries and keys, both parts."""
        return self.products_without_position() + self.products_of_position()


declare_dense(Latent, "latent_attention", DENSE_MISTAKES)


class PositionForgotten(Latent):
    name = "rope-part-forgotten"
    explanation = "The logits lack the part that carries the position."
    citation = CITATION

    def products_of_position(self) -> Array:
        return np.zeros_like(super().products_of_position())


class PositionTwice(Latent):
    name = "rope-part-counted-twice"
    explanation = "The part that carries the position is added twice."
    citation = CITATION

    def products_of_position(self) -> Array:
        return 2 * super().products_of_position()


class PositionPerHead(Latent):
    name = "rope-part-counted-per-head"
    explanation = "The part that carries the position is added once for every head, as the keys of position are shared."
    citation = CITATION
    needs = "h > 1"

    def products_of_position(self) -> Array:
        return self.heads * super().products_of_position()


class PositionSummedOverHeads(Latent):
    name = "rope-part-summed-over-heads"
    explanation = "The part that carries the position is summed over the heads, which share its keys."
    citation = CITATION
    needs = "h > 1"

    def products_of_position(self) -> Array:
        part = super().products_of_position()
        return np.broadcast_to(part.sum(axis=1, keepdims=True), part.shape)


class PositionOfFirstHead(Latent):
    name = "rope-queries-of-first-head"
    explanation = "All heads use the rotated queries of the first."
    citation = CITATION
    needs = "h > 1"

    def products_of_position(self) -> Array:
        part = super().products_of_position()
        return np.broadcast_to(part[:, :1], part.shape)


class PositionNotScaled(Latent):
    name = "rope-part-not-scaled"
    explanation = "The scale is applied to the part without position only."
    citation = CITATION
    needs = "factor != 1"

    def scaled(self, products: Array) -> Array:
        return super().scaled(self.products_without_position()) + self.products_of_position()


class ContentForgotten(Latent):
    name = "nope-part-forgotten"
    explanation = "The logits lack the part without position."
    citation = CITATION

    def products_without_position(self) -> Array:
        return np.zeros_like(super().products_without_position())


class ContentNotScaled(Latent):
    name = "nope-part-not-scaled"
    explanation = "The scale is applied to the part with position only."
    citation = CITATION
    needs = "factor != 1"

    def scaled(self, products: Array) -> Array:
        return self.products_without_position() + super().scaled(self.products_of_position())


class ScaleWithoutPosition(Latent):
    name = "scale-by-nope-width"
    explanation = "The logits are divided by sqrt(Dn) instead of sqrt(Dn + Dr)."
    citation = CITATION
    needs = "scale is None"

    def factor(self) -> float:
        return 1 / sqrt(self.content)


class ScaleByLatent(Latent):
    name = "scale-by-latent-width"
    explanation = "The logits are divided by sqrt(R + Dr), the width of the absorbed queries."
    citation = CITATION
    needs = "scale is None and c != d"

    def factor(self) -> float:
        return 1 / sqrt(self.rank + self.rotated)


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
        return np.swapaxes(self.w_uk.reshape(len(self.w_uk), self.content, self.rank), 1, 2)


class ValueWeightsReshaped(Latent):
    name = "value-weights-reshaped"
    explanation = "The values' weights are reshaped to (H, Dv, R) and transposed, so that their numbers meet the wrong latent elements."
    citation = CITATION
    needs = "c > 1 and e > 1"

    def value_weights(self) -> Array:
        return np.swapaxes(self.w_uv.reshape(len(self.w_uv), -1, self.rank), 1, 2)


class HeadsMixed(Latent):
    name = "weights-split-inside-heads"
    explanation = "The weights of all heads as one matrix (R, H Dn) are split with the heads innermost."
    citation = CITATION
    needs = "h > 1 and d > 1"

    def key_weights(self) -> Array:
        joined = np.moveaxis(self.w_uk, 0, 1).reshape(self.rank, self.content, len(self.w_uk))
        return np.moveaxis(joined, 2, 0)


class ValuesNotExpanded(Latent):
    name = "latent-rows-as-values"
    explanation = "The weights are applied to the latent rows themselves, which are never expanded to values."
    citation = CITATION
    needs = "c == e"

    def read_values(self) -> Array:
        return self.latent[:, None]


class CausalExclusive(Latent):
    name = "causal-excludes-own-position"
    explanation = "A query does not read the key at its own position."
    citation = "Vaswani et al. 2017, section 3.2.3, arXiv:1706.03762"
    needs = "causal"

    def within_causal(self, offsets: Array) -> Array:
        return offsets < 0 if self.causal else True


class FirstSequence(Latent):
    name = "latent-rows-of-first-sequence"
    explanation = "All sequences of the batch read the latent rows of the first."
    citation = CITATION
    needs = "b > 1"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        rows = arguments["c_kv"]
        super().__init__({**arguments, "c_kv": np.repeat(rows[:1], len(rows), axis=0)}, setting)
