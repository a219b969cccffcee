"""What the integers of caches, packed sequences and positions have to be. Plain lists, for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["check_cache", "check_edges", "check_positions", "check_slots", "pairs_of"]


def check_cache(block_table: Sequence[Sequence[int]], context_lens: Sequence[int], num_blocks: int, block_size: int) -> None:
    """Raise `ValueError` unless every position of every context lies in a block of the cache."""
    for sequence, (row, context) in enumerate(zip(block_table, context_lens, strict=True)):
        if not 0 <= context <= len(row) * block_size:
            raise ValueError(f"context_lens[{sequence}]={context}, but should be from 0 to {len(row)} blocks of {block_size}")
        for entry, block in enumerate(row[: -(-context // block_size)]):
            if not 0 <= block < num_blocks:
                raise ValueError(f"block_table[{sequence}, {entry}]={block}, but should be at least 0 and below {num_blocks}")


def check_slots(slots: Sequence[int], places: int) -> None:
    """Raise `ValueError` unless every slot is -1 or a place of the cache, and no place is written twice."""
    written = [slot for slot in slots if slot != -1]
    for index, slot in enumerate(slots):
        if not -1 <= slot < places:
            raise ValueError(f"slots[{index}]={slot}, but should be -1, or at least 0 and below {places}")
    if len(set(written)) != len(written):
        raise ValueError(f"slots write {len(written) - len(set(written))} places twice, but should write each once")


def check_edges(name: str, edges: Sequence[int], total: int) -> None:
    """Raise `ValueError` unless cumulative lengths start at 0, never decrease and end at the total."""
    first, last = (edges[0], edges[-1]) if edges else (None, None)
    if first != 0 or last != total:
        raise ValueError(f"{name} goes from {first} to {last}, but should go from 0 to {total}")
    for index, (start, stop) in enumerate(pairwise(edges)):
        if stop < start:
            raise ValueError(f"{name}[{index + 1}]={stop}, but should be at least {name}[{index}]={start}")


def check_positions(positions: Sequence[int]) -> None:
    """Raise `ValueError` unless every position is one that float32 counts exactly."""
    for index, position in enumerate(positions):
        if not 0 <= position <= 2**24:
            raise ValueError(f"position {index} is {position}, but should be from 0 to {2**24}")


def pairs_of(width: int, rotary_width: int | None) -> int:
    """How many pairs of columns are turned.

    Raises:
        ValueError: their number is odd, or more than there are.
    """
    turned = width if rotary_width is None else rotary_width
    if turned % 2 or not 0 <= turned <= width:
        raise ValueError(f"rotary width {turned}, but should be even and from 0 to {width}")
    return turned // 2
