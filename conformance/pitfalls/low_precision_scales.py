"""Mistakes of attention on quantised operands that are made in 8 bits: of codes, of their scales, and of the softmax around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.low_precision import FA3, SAGE, Quantised, of_both
from conformance.pitfalls.quantisation import spacing_of
from oracle.codes import CodeFormat

BLOCKS = "format != 'nvfp4'"


# At run time a mistake is mixed into each form, whose steps it overrides.
if TYPE_CHECKING:
    _Of = Quantised
else:
    _Of = object


@of_both
class Truncated(_Of):
    name = "codes-truncated"
    explanation = "Quotients are cut off instead of rounded to the nearest code."
    citation = SAGE
    needs = BLOCKS

    def rounded(self, x: Array, form: CodeFormat) -> Array:
        spacing = spacing_of(x, form)
        return np.trunc(np.clip(x, -form.largest, form.largest) / spacing) * spacing


@of_both
class AnotherRange(_Of):
    name = "range-of-another-format"
    explanation = "The largest magnitude of a block becomes 64 in int8, 240 in e4m3fn (where e4m3fnuz ends), or 49152 in e5m2."
    citation = FA3
    needs = BLOCKS

    def largest(self, form: CodeFormat) -> float:
        return {"int8": 64.0, "float8_e4m3fn": 240.0}.get(form.name, 49152.0)


@of_both
class QueriesNotQuantised(_Of):
    name = "queries-not-quantised"
    explanation = "Queries are multiplied as they are."
    citation = FA3
    needs = BLOCKS

    def through_codes(self, x: Array, size: int, role: str) -> Array:
        return x if role == "q" else super().through_codes(x, size, role)


@of_both
class KeysNotQuantised(_Of):
    name = "keys-not-quantised"
    explanation = "Keys are multiplied as they are."
    citation = FA3
    needs = BLOCKS

    def through_codes(self, x: Array, size: int, role: str) -> Array:
        return x if role == "k" else super().through_codes(x, size, role)


@of_both
class KeyScaleForgotten(_Of):
    name = "key-scale-forgotten"
    explanation = "Products are multiplied by the scale of the queries, not by that of the keys."
    citation = FA3
    needs = BLOCKS

    def factors(self, scales: Array, role: str) -> Array:
        return np.ones_like(scales) if role == "k" else scales


@of_both
class QueryScaleForgotten(_Of):
    name = "query-scale-forgotten"
    explanation = "Products are multiplied by the scale of the keys, not by that of the queries."
    citation = FA3
    needs = BLOCKS

    def factors(self, scales: Array, role: str) -> Array:
        return np.ones_like(scales) if role == "q" else scales


@of_both
class ScaleOfFirstBlock(_Of):
    name = "key-scale-of-first-block"
    explanation = "The codes of all keys are multiplied by the scale of the first block."
    citation = FA3
    needs = f"{BLOCKS} and s > key_block"

    def factors(self, scales: Array, role: str) -> Array:
        return np.broadcast_to(scales[:, :, :1], scales.shape) if role == "k" else scales


@of_both
class ScaleOfBlockBefore(_Of):
    name = "ragged-keys-with-scale-before"
    explanation = "The last block of keys, which is shorter, is quantised with its own scale and multiplied by the one before it."
    citation = FA3
    needs = f"{BLOCKS} and s > key_block and s % key_block != 0"

    def factors(self, scales: Array, role: str) -> Array:
        last = self.keys // self.key_block * self.key_block
        if role != "k":
            return scales
        return np.concatenate([scales[:, :, :last], np.broadcast_to(scales[:, :, last - 1 : last], scales[:, :, last:].shape)], axis=2)


@of_both
class QueryScaleOfFirstBlock(_Of):
    name = "query-scale-of-first-block"
    explanation = "The codes of all queries are multiplied by the scale of the first block."
    citation = FA3
    needs = f"{BLOCKS} and l > query_block"

    def factors(self, scales: Array, role: str) -> Array:
        return np.broadcast_to(scales[:, :, :1], scales.shape) if role == "q" else scales


@of_both
class BlocksSwapped(_Of):
    name = "block-sizes-swapped"
    explanation = "Queries are cut into blocks of the size for keys, and keys into those for queries."
    citation = FA3
    needs = f"{BLOCKS} and query_block != key_block and (l > query_block or l > key_block or s > key_block or s > query_block)"

    def scales(self, x: Array, size: int, role: str) -> Array:
        return super().scales(x, self.key_block if role == "q" else self.query_block, role)


@of_both
class OneScale(_Of):
    name = "one-scale-for-all-keys"
    explanation = "The keys of a head share one scale, whatever block they are in."
    citation = FA3
    needs = f"{BLOCKS} and s > key_block"

    def scales(self, x: Array, size: int, role: str) -> Array:
        return super().scales(x, x.shape[2] if role == "k" else size, role)


@of_both
class ScalesOfTokens(_Of):
    name = "scale-for-each-key"
    explanation = "Each key has a scale of its own instead of one for its block."
    citation = SAGE
    needs = f"{BLOCKS} and key_block > 1 and s > 1"

    def scales(self, x: Array, size: int, role: str) -> Array:
        return super().scales(x, 1 if role == "k" else size, role)


@of_both
class HeadsShare(_Of):
    name = "scale-over-all-heads"
    explanation = "The scale of a block is computed over all heads."
    citation = FA3
    needs = f"{BLOCKS} and h > 1"

    def amax(self, block: Array) -> Array:
        largest = super().amax(block)
        return np.broadcast_to(largest.max(axis=1, keepdims=True), largest.shape)


@of_both
class Signed(_Of):
    name = "largest-value-for-largest-magnitude"
    explanation = "The scale comes from the largest value of a block, so large negative ones saturate."
    citation = SAGE
    needs = BLOCKS

    def amax(self, block: Array) -> Array:
        return np.maximum(block.max(axis=(2, 3), keepdims=True), 0)


@of_both
class LogitScaleForgotten(_Of):
    name = "scale-of-logits-forgotten"
    explanation = "The logits are not scaled."
    citation = FA3
    needs = "factor != 1"

    def factor(self) -> float:
        return 1.0


@of_both
class LogitScaleTwice(_Of):
    name = "scale-of-logits-twice"
    explanation = "The logits are scaled twice: once in the queries before they are quantised, once after."
    citation = SAGE
    needs = "factor != 1 and factor != 0"

    def factor(self) -> float:
        return super().factor() ** 2


@of_both
class ScaleOfWidth(_Of):
    name = "scale-by-width"
    explanation = "The default scale is 1/D instead of 1/sqrt(D)."
    citation = FA3
    needs = "d > 1"

    def factor(self) -> float:
        return 1 / self.width if self.scale is None else super().factor()


@of_both
class TopLeft(_Of):
    name = "causal-top-left"
    explanation = "Causality is aligned with the first key instead of the last."
    citation = FA3
    needs = "causal and l != s and causal_alignment == 'bottom-right'"

    def allowed(self) -> Array:
        return np.arange(self.keys) <= np.arange(self.queries)[:, None]


@of_both
class CausalForgotten(_Of):
    name = "causal-ignored"
    explanation = "Queries read keys behind them."
    citation = FA3
    needs = "hidden"

    def allowed(self) -> Array:
        return np.ones((self.queries, self.keys), dtype=bool)


@of_both
class HeadsInterleaved(_Of):
    name = "heads-interleaved"
    explanation = "Query head h reads key/value head h % Hkv."
    citation = "Ainslie et al. 2023, arXiv:2305.13245"
    needs = "g > 1 and h > g"

    def head_of(self, heads: Array) -> Array:
        return heads % self.groups


@of_both
class FirstHead(_Of):
    name = "first-key-value-head"
    explanation = "All query heads read the first key/value head."
    citation = "Ainslie et al. 2023, arXiv:2305.13245"
    needs = "g > 1"

    def head_of(self, heads: Array) -> Array:
        return heads * 0


@of_both
class NoMaximum(_Of):
    name = "maximum-not-subtracted"
    explanation = "Exponentials are taken of the logits themselves, and overflow or vanish."
    citation = FA3
    occasional = True

    def maximum(self, logits: Array) -> Array:
        return np.zeros_like(logits[..., :1])


@of_both
class LastKeyLost(_Of):
    name = "last-ragged-key-block-dropped"
    explanation = "Keys in a last block that is not full are left out."
    citation = FA3
    needs = "s > key_block and s % key_block != 0"

    def allowed(self) -> Array:
        return super().allowed() & (np.arange(self.keys) < self.keys // self.key_block * self.key_block)
