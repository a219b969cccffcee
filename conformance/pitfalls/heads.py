"""Mistakes of which head's mask or bias a query head gets, where heads share keys (Ainslie et al. 2023, arXiv:2305.13245)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from conformance.pitfalls.dense import Array, Reference


class OfOtherHead(Reference):
    """An optional array that differs between heads is read for another head."""

    citation: ClassVar[str] = "Ainslie et al. 2023, section 2, arXiv:2305.13245"

    def read_head(self) -> Array:
        """Which head's part each query head reads, (Hq,)."""
        raise NotImplementedError

    def of_read_heads(self, x: Array) -> Array:
        """An array with its heads as they are read."""
        return np.broadcast_to(x, self.shape)[:, self.read_head()]


class OfFirstInGroup(OfOtherHead):
    """All query heads of a key/value head read what belongs to the first of them."""

    def read_head(self) -> Array:
        kv_heads = self.kv_heads()
        return np.array([int(np.argmax(kv_heads == kv_head)) for kv_head in kv_heads])


class OfRegroupedHeads(OfOtherHead):
    """Heads are unfolded as (group, Hkv) where they are folded as (Hkv, group), or the other way round."""

    def read_head(self) -> Array:
        group = self.heads // self.groups
        folded = (self.groups, group) if self.conventions["head_map"] == "grouped" else (group, self.groups)
        return np.arange(self.heads).reshape(folded).T.reshape(-1)


class MaskOfFirstInGroup(OfFirstInGroup):
    name = "mask-of-first-head-in-group"
    explanation = "With grouped heads all query heads of a key/value head use the mask of the first of them."
    needs = "mask_h > 1 and h > g"

    def within_mask(self) -> Array:
        return self.of_read_heads(super().within_mask())


class MaskRegrouped(OfRegroupedHeads):
    name = "mask-heads-regrouped"
    explanation = "With grouped heads the mask's heads are unfolded as (group, Hkv), not (Hkv, group): heads swap their masks."
    needs = "mask_h > 1 and h > g and g > 1"

    def within_mask(self) -> Array:
        return self.of_read_heads(super().within_mask())


class BiasOfFirstInGroup(OfFirstInGroup):
    name = "bias-of-first-head-in-group"
    explanation = "With grouped heads all query heads of a key/value head add the bias of the first of them."
    needs = "bias_h > 1 and h > g"

    def added_bias(self) -> Array:
        return self.of_read_heads(super().added_bias())


class BiasRegrouped(OfRegroupedHeads):
    name = "bias-heads-regrouped"
    explanation = "With grouped heads the bias's heads are unfolded as (group, Hkv), not (Hkv, group): heads swap their biases."
    needs = "bias_h > 1 and h > g and g > 1"

    def added_bias(self) -> Array:
        return self.of_read_heads(super().added_bias())
