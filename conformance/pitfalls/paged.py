"""Mistakes of paged attention: how many positions count, which block holds them, and what lies beside them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.served import Paged

KWON = "Kwon et al. 2023, section 4.1, arXiv:2309.06180"


class Misplaced(Paged):
    """A position is looked for in another place, or counts although it should not, or the other way round."""

    citation: ClassVar[str] = KWON
    needs = "wrong"

    def longest(self) -> int:
        """Positions that a row of the table has room for."""
        return self.width_of_table() * self.block_size()


class ContextOneShort(Misplaced):
    name = "context-one-short"
    explanation = "The last position of the context does not count: the query does not see its own key."

    def contexts(self) -> Array:
        return np.maximum(super().contexts() - 1, 0)


class ContextOneLong(Misplaced):
    name = "context-one-too-many"
    explanation = "One position beyond the context counts: whatever lies in the next place of the cache takes part."

    def contexts(self) -> Array:
        return np.minimum(super().contexts() + 1, self.longest())

    def positions(self) -> Array:
        return super().positions() - 1


class ContextAtBoundary(Misplaced):
    name = "last-block-lost-when-full"
    explanation = "The places of the last block are context % block_size: none, where the context ends with the block."

    def contexts(self) -> Array:
        contexts = super().contexts()
        return np.where(contexts % self.block_size() == 0, np.maximum(contexts - self.block_size(), 0), contexts)


class PartialBlockDropped(Misplaced):
    name = "partial-block-dropped"
    explanation = "The number of blocks is rounded down: positions of a last block that is not full are never read."

    def counted(self, place: Array) -> Array:
        return place < super().contexts()[:, None] // self.block_size() * self.block_size()


class LastBlockWhole(Misplaced):
    name = "last-block-read-whole"
    explanation = "All places of the last block count, those behind the context too."
    citation = "vllm#2231"

    def counted(self, place: Array) -> Array:
        return place < -(-super().contexts()[:, None] // self.block_size()) * self.block_size()


class ContextIgnored(Misplaced):
    name = "context-ignored"
    explanation = "All entries of the table count, whatever the context is; an entry of -1 reads the last block of the cache."

    def counted(self, place: Array) -> Array:
        return np.ones((len(super().contexts()), len(place)), bool)


class ContextOfLongest(Misplaced):
    name = "longest-context-for-all"
    explanation = "The longest context of the batch is used for all sequences."

    def contexts(self) -> Array:
        contexts = super().contexts()
        return np.full_like(contexts, contexts.max(initial=0))


class ContextOfFirst(Misplaced):
    name = "context-of-first-sequence"
    explanation = "The context of the first sequence is used for all."

    def contexts(self) -> Array:
        return np.repeat(super().contexts()[:1], len(super().contexts()))


class SwitchReadsOldBlock(Misplaced):
    name = "first-token-of-block-reads-old-block"
    explanation = "The entry of the table is found from the position before: the first token after a switch of blocks reads the old one."

    def entries(self, place: Array) -> Array:
        return np.maximum(place - 1, 0) // self.block_size()


class OffsetOneAhead(Misplaced):
    name = "offset-one-ahead"
    explanation = "The offset in the block is that of the next position, the block that of this one."

    def offsets(self, place: Array) -> Array:
        return (place + 1) % self.block_size()


class TableOfFirst(Misplaced):
    name = "block-table-of-first-sequence"
    explanation = "All sequences use the row of the table that belongs to the first."

    def table(self, name: str) -> Array:
        return np.broadcast_to(super().table(name)[:1], super().table(name).shape)


class TableOfNext(Misplaced):
    name = "block-table-of-next-sequence"
    explanation = "Each sequence uses the row of the table that belongs to the next one."

    def table(self, name: str) -> Array:
        return np.roll(super().table(name), -1, axis=0)


class TableIgnored(Misplaced):
    name = "block-table-ignored"
    explanation = "The blocks of a sequence are taken to lie one after the other, in the order of the batch."

    def table(self, name: str) -> Array:
        table = super().table(name)
        return np.arange(table.size).reshape(table.shape) % len(self.pages(name))


class FirstBlockForAll(Misplaced):
    name = "first-block-for-all-positions"
    explanation = "The entry of the table is not moved on: every position is looked for in the first block of its sequence."

    def entries(self, place: Array) -> Array:
        return np.zeros_like(place)


class FirstBlockConsecutive(Misplaced):
    name = "blocks-consecutive-from-first"
    explanation = "Only the first entry of a row is looked up; the blocks after it are taken to follow it in the cache."

    def table(self, name: str) -> Array:
        table = super().table(name)
        return np.maximum(table[:, :1] + np.arange(table.shape[1]), 0) % len(self.pages(name))


class BlockZeroUnused(Misplaced):
    name = "block-zero-taken-for-unused"
    explanation = "Entries are read only where they are above 0: the positions in block 0 do not count."
    citation = "amd-shark-ai#665"

    def counted(self, place: Array) -> Array:
        table, counted = self.given["block_table"], super().counted(place)
        return counted & (table[:, self.entries(place)] > 0) if table.shape[1] else counted


class RepeatedBlockOnce(Misplaced):
    name = "repeated-block-read-once"
    explanation = "A block that stands twice in a row of the table is read the first time only."

    def counted(self, place: Array) -> Array:
        table, counted = self.given["block_table"], super().counted(place)
        if not table.shape[1]:
            return counted
        before = np.tril(np.ones((table.shape[1],) * 2, bool), -1)
        again = ((table[:, :, None] == table[:, None, :]) & before).any(axis=-1)
        return counted & ~again[:, self.entries(place)]


class BlockNumberInByte(Misplaced):
    name = "block-number-in-a-byte"
    explanation = "The table is kept in 8 bits: block 256 is taken for block 0."

    def table(self, name: str) -> Array:
        table = super().table(name)
        return np.where(table < 0, table, table % 256)


class ContextInByte(Misplaced):
    name = "context-in-a-byte"
    explanation = "The contexts are kept in 8 bits: of 257 positions one counts."

    def contexts(self) -> Array:
        return super().contexts() % 256


class ValuesOfFirstBlocks(Misplaced):
    name = "values-from-table-of-first-sequence"
    explanation = "The keys are found rightly; for the values the row of the first sequence is used."

    def table(self, name: str) -> Array:
        table = super().table(name)
        return np.broadcast_to(table[:1], table.shape) if name == "v_pages" else table


class HeadsBeforePlaces(Misplaced):
    name = "pages-read-heads-first"
    explanation = "A block is read as (Hkv, block_size, D), as other caches have it: heads and places mix."
    citation = "Ye et al. 2025, section 3.1, arXiv:2501.01005"
    needs = "g > 1 and block_size > 1 and wrong"

    def pages(self, name: str) -> Array:
        pages = super().pages(name)
        count, size, heads, width = pages.shape
        return pages.reshape(count, heads, size, width).swapaxes(1, 2)


class BlocksOfSixteen(Misplaced):
    name = "block-size-taken-as-16"
    explanation = "Block and offset are computed with 16 places a block, whatever the cache has."
    citation = "flashinfer#4347"
    needs = "block_size != 16 and wrong"

    def entries(self, place: Array) -> Array:
        return place // 16

    def offsets(self, place: Array) -> Array:
        return place % 16 % self.block_size()


class WindowFromBlock(Misplaced):
    name = "window-starts-with-its-block"
    explanation = "The window is rounded out to blocks: the positions of its first block that lie before it count as well."
    needs = "left is not None and wrong"

    def within_window(self, offsets: Array) -> Array:
        starts = np.arange(self.keys) // self.block_size() * self.block_size() + self.block_size() - 1
        return super().within_window(starts - self.positions())


class WindowOfWholeBlocks(Misplaced):
    name = "window-boundary-block-dropped"
    explanation = "The window is rounded in to blocks: the block that it covers in part is not read."
    citation = "vllm-gaudi#1395"
    needs = "left is not None and wrong"

    def within_window(self, offsets: Array) -> Array:
        starts = np.arange(self.keys) // self.block_size() * self.block_size()
        return super().within_window(starts - self.positions())


class WindowOfLongest(Misplaced):
    name = "window-from-longest-context"
    explanation = "The window is counted back from the end of the longest context of the batch."
    needs = "left is not None and b > 1 and wrong"

    def positions(self) -> Array:
        return super().positions().max(initial=-1, keepdims=True)


class ValuesNotCleared(Paged):
    name = "foreign-values-times-zero"
    explanation = "Values behind the context get a weight of 0 and are multiplied: what lies there leaks when it is NaN."
    citation = "vllm#42494"
    needs = "poisoned"

    def cleared(self, rows: Array, counted: Array, name: str) -> Array:
        return rows if name == "v_pages" else super().cleared(rows, counted, name)


class KeysNotCleared(Paged):
    name = "foreign-keys-masked-by-adding"
    explanation = "Logits behind the context are hidden by adding minus infinity, which leaves a NaN what it is."
    citation = "Wan2GP#1628"
    needs = "poisoned"

    def cleared(self, rows: Array, counted: Array, name: str) -> Array:
        return rows if name == "k_pages" else super().cleared(rows, counted, name)

    def masked(self, logits: Array, allowed: Array) -> Array:
        return logits + np.where(allowed, 0.0, -np.inf).astype(self.dtype)


class RestTimesZero(ValuesNotCleared):
    name = "rest-of-block-times-zero"
    explanation = "Only the blocks of a context are read, but the values behind it in the last one are multiplied by a weight of 0."
    citation = "flashinfer#942"

    def cleared(self, rows: Array, counted: Array, name: str) -> Array:
        read = self.in_used_blocks()
        return super().cleared(np.where(read[:, None, :, None], rows, 0.0).astype(self.dtype), counted, name)

    def in_used_blocks(self) -> Array:
        """Which places lie in blocks that hold positions of the context, (B, S)."""
        blocks = -(-self.contexts() // self.block_size())
        return np.arange(self.width_of_table() * self.block_size()) < blocks[:, None] * self.block_size()


class RestMaskedByAdding(KeysNotCleared):
    name = "rest-of-block-masked-by-adding"
    explanation = "Only the blocks of a context are read, but the keys behind it in the last one are hidden by adding minus infinity."
    citation = "Wan2GP#1628"

    def cleared(self, rows: Array, counted: Array, name: str) -> Array:
        read = RestTimesZero.in_used_blocks(self)  # type: ignore[arg-type]
        return super().cleared(np.where(read[:, None, :, None], rows, 0.0).astype(self.dtype), counted, name)


def _with_unused_as_first(*mistakes: type[Paged]) -> None:
    """Declare mistakes that read entries of -1 once more: where the kernel clamps them, which reads block 0."""
    for mistake in mistakes:
        facts = {
            "name": f"{mistake.name}-unused-as-block-0", "explanation": f"{mistake.explanation} An entry of -1 is clamped to block 0.",
            "unused": 0,
        }  # fmt: skip
        type(f"{mistake.__name__}AsFirst", (mistake,), facts)


_with_unused_as_first(ContextOneLong, ContextIgnored, ContextOfLongest, ContextOfFirst, ValuesNotCleared, KeysNotCleared)
