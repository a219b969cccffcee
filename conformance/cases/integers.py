"""Recipes for arrays of integers, by the kind of their domain (see `oracle.domains`), the plainest first.

What an integer means depends on the dimensions and on other integers (a block table has entries where the contexts reach), so
a recipe is told both: whatever a case is shrunk to, its integers fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from oracle.domains import LAST_POSITION, used_blocks

__all__ = ["INTEGER_RECIPES", "kind_of_integers", "make_integers", "plain_integers", "recipes_of_integers"]


@dataclass(frozen=True)
class Given:
    """What a recipe of integers is told.

    Attributes:
        shape: of the array to make.
        sizes: of the dimensions that its domain names, in order.
        others: the arrays that its domain names, in order.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    others: tuple[np.ndarray, ...] = ()


# Tiles at whose edges packed sequences end.
TILES = (8, 16, 32, 64, 16)

Maker = Callable[[np.random.Generator, Given], np.ndarray]


def _zeros(rng: np.random.Generator, given: Given) -> np.ndarray:
    return np.zeros(given.shape, np.int64)


# Indices below a bound.


def _integers(rng: np.random.Generator, given: Given) -> np.ndarray:
    return rng.integers(0, max(given.sizes[0], 1), given.shape)


def _distinct(rng: np.random.Generator, given: Given) -> np.ndarray:
    """No number twice in a row of the last axis, as far as there are enough."""
    bound, shape = given.sizes[0], given.shape
    rows = rng.random((*shape[:-1], max(bound, shape[-1], 1))).argsort(axis=-1)[..., : shape[-1]]
    return rows % max(bound, 1)


def _index_holes(rng: np.random.Generator, given: Given) -> np.ndarray:
    """Some stand for nothing."""
    return np.where(rng.random(given.shape) < 0.3, -1, _distinct(rng, given))


def _last_index(rng: np.random.Generator, given: Given) -> np.ndarray:
    return np.full(given.shape, max(given.sizes[0] - 1, 0))


# Contexts: how many positions of a cache of blocks count.


def _longest(given: Given) -> int:
    return given.sizes[0] * given.sizes[1]


def _full_contexts(rng: np.random.Generator, given: Given) -> np.ndarray:
    return np.full(given.shape, _longest(given))


def _any_contexts(rng: np.random.Generator, given: Given) -> np.ndarray:
    return rng.integers(0, _longest(given) + 1, given.shape)


def _around_blocks(rng: np.random.Generator, given: Given) -> np.ndarray:
    """A whole number of blocks, one more or one less."""
    size, count = given.sizes
    near = rng.integers(0, count + 1, given.shape) * size + rng.integers(-1, 2, given.shape)
    return np.clip(near, 0, _longest(given))


def _whole_blocks(rng: np.random.Generator, given: Given) -> np.ndarray:
    """Never a partial block."""
    size, count = given.sizes
    return np.asarray(rng.integers(min(count, 1), count + 1, given.shape) * size)


def _after_a_switch(rng: np.random.Generator, given: Given) -> np.ndarray:
    """The last position is the first of its block."""
    size, count = given.sizes
    return np.asarray(rng.integers(0, max(count, 1), given.shape) * size + 1) if count else np.zeros(given.shape, np.int64)


def _first_blocks(rng: np.random.Generator, given: Given) -> np.ndarray:
    """The lengths at which a cache of few tokens changes: none, and around the end of the first block."""
    size = given.sizes[0]
    return np.minimum(rng.choice([0, 1, size - 1, size, size + 1], given.shape), _longest(given))


def _some_empty(rng: np.random.Generator, given: Given) -> np.ndarray:
    return np.where(rng.random(given.shape) < 0.5, 0, _any_contexts(rng, given))


# Block tables: which blocks hold the positions of each sequence.


def _unused(table: np.ndarray, given: Given, filler: np.ndarray | int = -1) -> np.ndarray:
    used = used_blocks(given.shape[1], given.sizes[1], given.others[0])
    return np.where(used, table, filler)


def _in_order(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _unused(np.arange(given.shape[0] * given.shape[1]).reshape(given.shape) % given.sizes[0], given)


def _reversed(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _unused(given.sizes[0] - 1 - np.arange(given.shape[0] * given.shape[1]).reshape(given.shape) % given.sizes[0], given)


def _any_order(rng: np.random.Generator, given: Given) -> np.ndarray:
    """Each block once, as far as there are enough."""
    rows, width = given.shape
    rounds = -(-rows * width // given.sizes[0])
    order = np.concatenate([np.zeros(0, np.int64), *(rng.permutation(given.sizes[0]) for _ in range(rounds))])
    return order[: rows * width].reshape(rows, width)


def _scattered(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _unused(_any_order(rng, given), given)


def _stale(rng: np.random.Generator, given: Given) -> np.ndarray:
    """Entries that nothing uses hold blocks of other sequences, as a cache leaves them."""
    return _unused(_any_order(rng, given), given, rng.integers(0, given.sizes[0], given.shape))


def _shared(rng: np.random.Generator, given: Given) -> np.ndarray:
    """The first half of every row is that of the first row: a shared prefix."""
    table = _any_order(rng, given)
    prefix = np.arange(given.shape[1]) < -(-given.shape[1] // 2)
    return _unused(np.where(prefix, table[:1], table), given)


def _repeated(rng: np.random.Generator, given: Given) -> np.ndarray:
    """Few blocks, each of them several times in a row."""
    return _unused(rng.integers(0, min(given.sizes[0], 2), given.shape), given)


def _holes(rng: np.random.Generator, given: Given) -> np.ndarray:
    """Every other block belongs to nobody."""
    return _unused(_any_order(rng, given) // 2 * 2, given)


def _without_first(rng: np.random.Generator, given: Given) -> np.ndarray:
    """Neither the first nor the last block belongs to anybody."""
    middle = max(given.sizes[0] - 2, 1)
    return _unused(np.minimum(1 + _any_order(rng, given) % middle, given.sizes[0] - 1), given)


# Slots: places of new tokens in a cache.


def _slots(rng: np.random.Generator, given: Given, chosen: np.ndarray) -> np.ndarray:
    """Each of the chosen places once; -1 for tokens that are more."""
    (count,) = given.shape
    return np.concatenate([chosen[:count], np.full(max(count - len(chosen), 0), -1)]).astype(np.int64)


def _places(given: Given) -> int:
    return given.sizes[0] * given.sizes[1]


def _consecutive_slots(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _slots(rng, given, np.arange(_places(given)))


def _scattered_slots(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _slots(rng, given, rng.permutation(_places(given)))


def _across_a_switch(rng: np.random.Generator, given: Given) -> np.ndarray:
    """From the last places of a block into another one."""
    count, size = given.sizes
    blocks = rng.permutation(count)
    places = (blocks[:, None] * size + np.arange(size)).reshape(-1)
    return _slots(rng, given, places[max(size - 1, 0) :])


def _padded_slots(rng: np.random.Generator, given: Given) -> np.ndarray:
    """Some tokens are padding."""
    return np.where(rng.random(given.shape) < 0.4, -1, _scattered_slots(rng, given))


def _last_slots(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _slots(rng, given, np.arange(_places(given))[::-1])


def _no_slots(rng: np.random.Generator, given: Given) -> np.ndarray:
    return np.full(given.shape, -1)


# Cumulative lengths of sequences that are packed one after the other.


def _cumulated(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _count(given: Given) -> int:
    return max(given.shape[0] - 1, 0)


def _equal_lengths(rng: np.random.Generator, given: Given) -> np.ndarray:
    """As equal as they can be, the longer ones first."""
    total, count = given.sizes[0], max(_count(given), 1)
    return _cumulated((total // count + (np.arange(count) < total % count))[: _count(given)])


def _cut(rng: np.random.Generator, total: int, count: int) -> np.ndarray:
    """Lengths of random parts."""
    edges = np.sort(rng.integers(0, total + 1, max(count - 1, 0)))
    return np.diff(np.concatenate([[0], edges, [total]]))[:count]


def _uneven_lengths(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _cumulated(_cut(rng, given.sizes[0], _count(given)))


def _with_empty(rng: np.random.Generator, given: Given, empty: np.ndarray) -> np.ndarray:
    """Random lengths, some of them 0; all of them never are unless there is nothing to cut."""
    lengths, kept = np.zeros(_count(given), np.int64), np.flatnonzero(~empty)
    kept = kept if len(kept) else np.arange(_count(given))[:1]
    lengths[kept] = _cut(rng, given.sizes[0], len(kept))
    return _cumulated(lengths)


def _empty_first(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _with_empty(rng, given, np.arange(_count(given)) < rng.integers(1, 3))


def _empty_last(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _with_empty(rng, given, np.arange(_count(given))[::-1] < rng.integers(1, 3))


def _empty_between(rng: np.random.Generator, given: Given) -> np.ndarray:
    return _with_empty(rng, given, np.arange(_count(given)) % 2 == 1)


def _one_long(rng: np.random.Generator, given: Given) -> np.ndarray:
    """One sequence has nearly everything, the others one token each, as far as there are enough."""
    total, count = given.sizes[0], _count(given)
    lengths = np.ones(count, np.int64) if total >= count else np.zeros(count, np.int64)
    if count:
        lengths[rng.integers(count)] += total - lengths.sum()
    return _cumulated(lengths)


def _around_tiles(rng: np.random.Generator, given: Given) -> np.ndarray:
    """A whole number of tiles, one more or one less, as far as there are enough; the last sequence has the rest."""
    total, count = given.sizes[0], _count(given)
    if not count:
        return _cumulated(np.zeros(0, np.int64))
    tile = int(rng.choice([tile for tile in TILES if tile * count <= total] or [max(total // count, 1)]))
    ends = np.cumsum(tile * rng.integers(1, 1 + max(total // (tile * count), 1), count) + rng.integers(-1, 2, count))
    return np.concatenate([[0], np.minimum(ends[:-1], total), [total]]).astype(np.int64)


def _one_only(rng: np.random.Generator, given: Given) -> np.ndarray:
    """All sequences but one are empty."""
    lengths = np.zeros(_count(given), np.int64)
    if len(lengths):
        lengths[rng.integers(len(lengths))] = given.sizes[0]
    return _cumulated(lengths)


# Positions of tokens.


def _from_zero(rng: np.random.Generator, given: Given) -> np.ndarray:
    return np.broadcast_to(np.arange(given.shape[-1]), given.shape).copy()


def _continued(start: int) -> Maker:
    def make(rng: np.random.Generator, given: Given) -> np.ndarray:
        return np.asarray(np.arange(given.shape[-1]) + rng.integers(0, start, (*given.shape[:-1], 1)))

    return make


def _any_positions(rng: np.random.Generator, given: Given) -> np.ndarray:
    return rng.integers(0, 300, given.shape)


def _far(rng: np.random.Generator, given: Given) -> np.ndarray:
    return rng.integers(10**6, LAST_POSITION + 1, given.shape)


def _padded_positions(rng: np.random.Generator, given: Given) -> np.ndarray:
    """Padded on the left: the padding has position 0, the tokens after it count from 0."""
    padding = rng.integers(0, given.shape[-1] + 1, (*given.shape[:-1], 1))
    return np.maximum(np.arange(given.shape[-1]) - padding, 0)


INTEGER_RECIPES: dict[str, dict[str, Maker]] = {
    "index": {"integers": _integers, "distinct": _distinct, "zeros": _zeros, "last": _last_index},
    "index or none": {
        "integers": _integers, "distinct": _distinct, "holes": _index_holes, "zeros": _zeros, "last": _last_index,
    },
    "context": {
        "full": _full_contexts, "mixed": _any_contexts, "around_blocks": _around_blocks, "whole_blocks": _whole_blocks,
        "after_a_switch": _after_a_switch, "first_blocks": _first_blocks, "some_empty": _some_empty, "zeros": _zeros,
    },
    "block-table": {
        "in_order": _in_order, "reversed": _reversed, "scattered": _scattered, "stale": _stale, "shared": _shared,
        "repeated": _repeated, "holes": _holes, "without_first": _without_first,
    },
    "slots": {
        "consecutive": _consecutive_slots, "scattered": _scattered_slots, "across_a_switch": _across_a_switch, "padded": _padded_slots,
        "last": _last_slots, "none": _no_slots,
    },
    "cumulative": {
        "equal": _equal_lengths, "uneven": _uneven_lengths, "empty_first": _empty_first, "empty_last": _empty_last,
        "empty_between": _empty_between, "one_long": _one_long, "one_only": _one_only, "around_tiles": _around_tiles,
    },
    "position": {
        "from_zero": _from_zero, "continued": _continued(200), "any": _any_positions, "far": _far, "padded": _padded_positions,
        "zeros": _zeros, "continued_far": _continued(10**6),
    },
}  # fmt: skip


def recipes_of_integers(domain: str) -> tuple[str, ...]:
    """Names of the recipes of a domain, the plainest first."""
    return tuple(INTEGER_RECIPES[kind_of_integers(domain)])


def kind_of_integers(domain: str) -> str:
    """The kind of a domain, without its parameters."""
    kind = domain.partition(" ")[0]
    return f"{kind} or none" if domain.endswith(" or none") else kind


def plain_integers(domain: str) -> tuple[tuple[str, ...], ...]:
    """What a case is shrunk to, from the plainest on: zeros where they are allowed, then the first recipe of the domain."""
    names = recipes_of_integers(domain)
    return (("zeros",), names[:1]) if domain.startswith("index ") else (names[:1], names[1:2])


def make_integers(
    recipe: str, seed: int, shape: tuple[int, ...], domain: str, sizes: Mapping[str, int], others: tuple[np.ndarray, ...]
) -> np.ndarray:  # fmt: skip
    """An int64 array of a recipe.

    Args:
        recipe: one of those of the domain's kind.
        seed: of the random numbers.
        shape: of the array.
        domain: as the method declares it.
        sizes: of the dimensions.
        others: the arrays that the domain names.
    """
    given = Given(shape, tuple(sizes[name] for name in domain.split()[1:] if name in sizes), others)
    return np.asarray(INTEGER_RECIPES[kind_of_integers(domain)][recipe](np.random.default_rng(seed), given)).astype(np.int64)
