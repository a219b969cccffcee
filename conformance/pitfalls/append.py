"""Mistakes of writing new tokens into a cache of blocks: where, which, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle import METHODS

__all__ = ["Append"]

KWON = "Kwon et al. 2023, section 4.3, arXiv:2309.06180"
CACHE = "vllm#13922"


class Append(Steps):
    """What the specification means, token by token."""

    methods: ClassVar[tuple[str, ...]] = ("append_to_pages",)
    citation: ClassVar[str] = KWON
    needs = "wrong"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.slots = arguments["slots"]
        self.blocks, self.size, self.heads, _ = arguments["k_pages"].shape

    def facts(self) -> dict[str, Any]:
        """Dimensions, and whether what is returned is wrong."""
        return {**METHODS["append_to_pages"].sizes(self.arguments), "wrong": lambda: self.is_wrong(), "dtype": self.setting.dtype}

    def is_wrong(self) -> bool:
        """Whether the mistake changes anything in this call."""
        right = type(self).unmistaken()(self.arguments, self.setting).outputs()
        return any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(self.outputs(), right, strict=True))

    def rows(self, name: str) -> Array:
        """The new rows, (T, Hkv, width)."""
        return self.arguments[name]

    def targets(self, name: str) -> Array:
        """Where each row goes, (T,); -1 for nowhere."""
        return self.slots

    def places(self, slots: Array) -> tuple[Array, Array]:
        """Block and offset of slots."""
        return slots // self.size, slots % self.size

    def kept(self, pages: Array, name: str) -> Array:
        """The cache before anything is written."""
        return pages.copy()

    def merged(self, old: Array, new: Array) -> Array:
        """What stands in a place after writing."""
        return new

    def written(self, name: str) -> Array:
        """The new cache of keys or of values."""
        rows, targets, pages = self.rows(name), self.targets(name), self.kept(self.arguments[f"{name}_pages"], name)
        rows, targets = rows[targets >= 0], targets[targets >= 0]
        block, offset = self.places(targets)
        block = block % self.blocks
        pages[block, offset] = self.merged(pages[block, offset], rows)
        return pages

    def outputs(self) -> tuple[Array, ...]:
        return self.written("k"), self.written("v")


class PaddingToLastPlace(Append):
    name = "padding-written-to-last-place"
    explanation = "A slot of -1 is an index from the end: padding overwrites the last place of the cache."

    def targets(self, name: str) -> Array:
        return self.slots % (self.blocks * self.size)


class PaddingToFirstPlace(Append):
    name = "padding-written-to-first-place"
    explanation = "A slot of -1 is clamped to 0: padding overwrites the first place of the cache."
    citation = CACHE

    def targets(self, name: str) -> Array:
        return np.maximum(self.slots, 0)


class PaddingShiftsRows(Append):
    name = "padding-shifts-the-rows"
    explanation = "The slots of padding are left out, its rows are not: all rows after it go to the slot of another token."

    def rows(self, name: str) -> Array:
        kept, rows = self.slots >= 0, super().rows(name)
        order = np.zeros(len(rows), int)
        order[kept] = np.arange(kept.sum())
        return rows[order]


class SlotOneAhead(Append):
    name = "slot-one-ahead"
    explanation = "Tokens go to the place after their slot."

    def targets(self, name: str) -> Array:
        return np.where(self.slots < 0, -1, (self.slots + 1) % (self.blocks * self.size))


class SlotOneBehind(Append):
    name = "slot-one-behind"
    explanation = "Slots are taken as counted from 1: tokens go to the place before their slot."

    def targets(self, name: str) -> Array:
        return np.where(self.slots < 0, -1, (self.slots - 1) % (self.blocks * self.size))


class SwitchWritesOldBlock(Append):
    name = "first-token-of-block-written-to-old-block"
    explanation = "The block is that of the slot before: the first token after a switch of blocks goes to the start of the old one."

    def places(self, slots: Array) -> tuple[Array, Array]:
        return np.maximum(slots - 1, 0) // self.size, slots % self.size


class OffsetFromBlocks(Append):
    name = "block-and-offset-by-number-of-blocks"
    explanation = "The slot is divided by the number of blocks instead of by the size of one."

    def places(self, slots: Array) -> tuple[Array, Array]:
        return slots // self.blocks, slots % self.blocks % self.size


class BlocksOfSixteen(Append):
    name = "block-size-taken-as-16"
    explanation = "Block and offset are computed with 16 places a block, whatever the cache has."
    citation = "vllm#27547"
    needs = "block_size != 16 and wrong"

    def places(self, slots: Array) -> tuple[Array, Array]:
        return slots // 16, slots % 16 % self.size


class BlockNumberInByte(Append):
    name = "block-number-in-a-byte"
    explanation = "The number of a block is kept in 8 bits: what belongs in block 256 is written to block 0."

    def places(self, slots: Array) -> tuple[Array, Array]:
        block, offset = super().places(slots)
        return block % 256, offset


class SlotsConsecutive(Append):
    name = "slots-taken-as-consecutive"
    explanation = "Only the first slot is looked at; the tokens after it go to the places that follow."

    def targets(self, name: str) -> Array:
        if not len(self.slots) or self.slots[0] < 0:
            return self.slots
        return np.where(self.slots < 0, -1, (self.slots[0] + np.arange(len(self.slots))) % (self.blocks * self.size))


class SlotsSorted(Append):
    name = "slots-sorted"
    explanation = "The slots are sorted and the rows are not: rows go to the slots of others."

    def targets(self, name: str) -> Array:
        return np.sort(self.slots)


class LastTokenLost(Append):
    name = "last-token-lost"
    explanation = "The last new token is not written."

    def targets(self, name: str) -> Array:
        return np.where(np.arange(len(self.slots)) == len(self.slots) - 1, -1, self.slots)


class FirstTokenOnly(Append):
    name = "first-token-only"
    explanation = "One token is written, as in a step of decoding; the others of a longer piece are not."

    def targets(self, name: str) -> Array:
        return np.where(np.arange(len(self.slots)) > 0, -1, self.slots)


class ValuesForgotten(Append):
    name = "values-not-written"
    explanation = "The keys are written, the values are not."

    def targets(self, name: str) -> Array:
        return self.slots if name == "k" else np.full_like(self.slots, -1)


class FirstHeadOnly(Append):
    name = "first-head-only"
    explanation = "Only the first key/value head is written."
    needs = "g > 1 and wrong"

    def merged(self, old: Array, new: Array) -> Array:
        return np.where((np.arange(self.heads) == 0)[:, None], new, old)


class HeadsReversed(Append):
    name = "heads-and-places-exchanged"
    explanation = "A block is written as (Hkv, block_size, D), as other caches have it: heads and places mix."
    citation = "Ye et al. 2025, section 3.1, arXiv:2501.01005"
    needs = "g > 1 and block_size > 1 and wrong"

    def written(self, name: str) -> Array:
        pages, targets = self.arguments[f"{name}_pages"].copy(), self.slots
        view = pages.reshape(self.blocks, self.heads, self.size, -1)
        block, offset = self.places(targets[targets >= 0])
        view[block, :, offset] = self.rows(name)[targets >= 0]
        return pages


class AddedToOld(Append):
    name = "added-to-what-was-there"
    explanation = "The new row is added to what the place held, which is right only where that was zero."

    def merged(self, old: Array, new: Array) -> Array:
        return old + new


class OldTimesZero(Append):
    name = "old-content-times-zero"
    explanation = "A place becomes (1 - written) * old + written * new: NaN in a freed place survives."
    citation = "flash-attention#2374"

    def merged(self, old: Array, new: Array) -> Array:
        return 0.0 * old + new


class PaddingTimesZero(Append):
    name = "padding-rows-times-zero"
    explanation = "Rows are spread by a product with a matrix of zeros and ones: NaN in a row of padding reaches every place."
    citation = "flash-attention#2374"

    def written(self, name: str) -> Array:
        return super().written(name) + (0.0 * self.rows(name)).sum(axis=0)


class RestOfBlockCleared(Append):
    name = "rest-of-block-cleared"
    explanation = "A block that is written to is replaced as a whole: its other places are zero afterwards."

    def kept(self, pages: Array, name: str) -> Array:
        pages = pages.copy()
        pages[np.unique(self.slots[self.slots >= 0] // self.size)] = 0.0
        return pages


class OthersCleared(Append):
    name = "other-places-cleared"
    explanation = "The new cache starts from zeros instead of from the old one."

    def kept(self, pages: Array, name: str) -> Array:
        return np.zeros_like(pages)
