"""Dimensions of a case: around the boundaries at which kernels change their path.

Lengths are drawn as a tile size times a small number, give or take one, because that is where partial tiles, empty tiles
and loop bounds go wrong; when the implementation shows no tunables, common tile sizes stand in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt, prod

from conformance.cases.options import Choose
from oracle.catalogue import Method
from oracle.conditions import condition_names, evaluate

__all__ = ["COMMON_TILES", "STAGES", "Stage", "dimensions", "stages"]

COMMON_TILES = (16, 32, 64, 128, 8, 256)
SPECIAL_LENGTHS = (
    1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 79, 96, 97, 127, 128, 129, 191, 193, 255, 256, 257, 511, 512, 513,
)  # fmt: skip
LONG_LENGTHS = (520, 528, 700, 768, 1000, 1023, 1024, 1025, 1500, 2047, 2048, 2049, 4096, 4097)
USUAL_BATCHES = (1, 2, 3, 1, 2, 3, 2)
LARGE_BATCHES = (5, 8, 9)  # besides, where a sequence is one query or one token, and costs little
WIDTHS = (4, 1, 2, 3, 5, 8, 7, 12, 16, 20, 32, 33, 40, 64, 72, 80, 96, 128, 160, 256)
GROUPS = (1, 2, 1, 3, 4, 1, 5, 7, 8)
OTHER_SIZES = (2, 1, 3, 4, 5, 6, 8, 16, 33)  # of a dimension that is neither length, width, heads nor batch

# Sizes of what a letter or a name stands for in every method: blocks of a cache, edges between packed sequences; experts of a
# router, those that a token chooses, tokens of a vocabulary.
NAMED_SIZES: dict[str, tuple[int, ...]] = {
    "num_blocks": (8, 3, 5, 12, 2, 16, 1, 33, 64, 300),  # the last are more than a byte can number
    "block_size": (4, 2, 1, 3, 8, 5, 16, 32, 12, 24, 64),
    "max_blocks": (3, 2, 4, 1, 5, 2, 8, 12, 33, 65),
    "edges": (3, 2, 4, 3, 3, 5, 8, 4, 2, 3, 1, 6, 10, 18),
    "x": (4, 2, 8, 3, 6, 1, 5, 7, 9, 12, 16, 33, 64, 160),
    "c": (1, 2, 1, 2, 3, 4, 6, 8),
    "v": (5, 2, 3, 8, 4, 1, 7, 16, 17, 33, 64, 100, 257),
}

# Dimensions that are widths although their letters do not tell: of hidden layers, features, projected and latent rows. Beyond the
# small stage they may be as large as in models, where tiles of them end.
INNER_WIDTHS = {
    **dict.fromkeys(("moe_layer", "mixture_of_depths", "grouped_query_attention_shared_experts"), ("f",)),
    "linformer_attention": ("p", "w"), "performer_attention": ("m",), "latent_attention": ("r", "c"),
}  # fmt: skip
LARGE_WIDTHS = (64, 65, 100, 128, 129, 256, 300, 512)

# A length that no stage finds too long.
SMALL = 20

# The condition of a method whose queries are as many as its keys.
EQUAL_LENGTHS = "l == s"

# What a letter of a signature stands for.
BATCHES, KV_HEADS, QUERY_HEADS, QUERY_LENGTHS, KEY_LENGTHS = "b", "g", "h", "l", "s"
WIDTH_LETTERS = ("d", "e")

# Dimensions by which a cost is to be looked at again once they are known.
COSTLY = frozenset((*WIDTH_LETTERS, *NAMED_SIZES))


@dataclass(frozen=True)
class Stage:
    """A part of a hunt: how large its cases are. Cheap stages come first.

    Attributes:
        name: shown in the progress display.
        share: of the examples; the directed search has what they leave.
        longest: length up to which tiles are aimed at.
        elements: B * H * Lq * Lk stays below this, or what else a method says its evaluation costs.
    """

    name: str
    share: float
    longest: int
    elements: int


STAGES = (
    Stage("small", 0.44, 20, 20_000),
    Stage("tiles", 0.34, 300, 70_000),
    Stage("long", 0.12, 5000, 300_000),
)


def stages(dtype: str) -> tuple[Stage, ...]:
    """The stages for a dtype: smaller for float64, whose oracle computes in extended precision, without a BLAS."""
    if dtype != "float64":
        return STAGES
    return tuple(replace(stage, longest=min(stage.longest, 1100), elements=min(stage.elements, 30_000)) for stage in STAGES)


def _length(choose: Choose, stage: Stage, tile: int) -> int:
    if stage.longest <= SMALL:
        return choose((*range(13), 15, 16, 16, 17))
    kinds = ("edge", "special", "any", "small")
    kind = choose((*kinds, "edge", "edge") if stage.longest <= 300 else (*kinds, *("long",) * 8))
    if kind == "edge":
        most = max(1, min(4, stage.longest // tile))
        return min(max(tile * choose(range(1, most + 1)) + choose((0, 0, 1, -1)), 0), stage.longest)
    if kind == "special":
        return choose([length for length in SPECIAL_LENGTHS if length <= stage.longest])
    if kind == "long":
        return choose([length for length in LONG_LENGTHS if length <= stage.longest] or [stage.longest])
    return choose(range(1, min(stage.longest, 300) if kind == "any" else 9))


def _affordable(choose: Choose, method: Method, letter: str, stage: Stage, tile: int) -> int:
    """A length whose evaluation for one head costs no more than the stage allows, or is small anyway."""
    one_head = dict.fromkeys(condition_names(method.cost), 1)
    longest = stage.longest
    while longest > SMALL and evaluate(method.cost, {**one_head, letter: longest}) > stage.elements:
        longest = longest * 3 // 4
    return _length(choose, replace(stage, longest=longest), min(tile, longest))


def dimensions(choose: Choose, method: Method, stage: Stage, tile: int) -> dict[str, int]:
    """Sizes for every dimension of a method, within a stage's limit of elements."""
    letters, small = [letter for letter in method.signature.dims if letter not in method.derived], stage.longest <= SMALL
    sizes = _lengths(choose, method, stage, tile)
    room = max(1, stage.elements // (2 * prod(max(size, 1) for size in sizes.values())))
    if BATCHES in letters:
        batches = USUAL_BATCHES if {QUERY_LENGTHS, KEY_LENGTHS} & set(letters) else (*USUAL_BATCHES, *LARGE_BATCHES)
        sizes[BATCHES] = choose([batch for batch in batches if batch <= room] + [0] * small)
        room //= max(sizes[BATCHES], 1)
    if KV_HEADS in letters:
        group = choose([group for group in GROUPS if group <= room])
        sizes[KV_HEADS] = choose([heads for heads in (1, 2, 3, 4) if heads * group <= room])
        sizes[QUERY_HEADS] = sizes[KV_HEADS] * group
    elif QUERY_HEADS in letters:
        sizes[QUERY_HEADS] = choose([heads for heads in (1, 2, 3, 4, 1, 2, 3, 4, 5, 8, 16) if heads <= 4 or (not small and heads <= room)])
    for letter in letters:
        if letter not in sizes and letter not in WIDTH_LETTERS:
            sizes[letter] = choose(_other_sizes(method, stage, letter, sizes))
    rows = max((prod(sizes.get(dim, 1) for dim in spec.dims) for spec in method.signature.required), default=1)
    # What an array costs to make must not exceed what the oracle costs.
    widths = [width for width in WIDTHS if (width <= 33 if small else width * rows <= 8 * stage.elements)] or [min(WIDTHS)]
    for letter in letters:
        if letter in WIDTH_LETTERS:
            sizes[letter] = choose([width for width in widths if _fits(method, stage, {**sizes, letter: width})] or [min(widths)])
    if {"d", "e"} <= set(letters) and choose((True, False)) and _fits(method, stage, {**sizes, "e": sizes["d"]}):
        sizes["e"] = sizes["d"]
    return {letter: sizes.get(letter, 0) for letter in method.signature.dims}


def _other_sizes(method: Method, stage: Stage, letter: str, sizes: dict[str, int]) -> list[int]:
    """Sizes of a dimension that is neither length, width, heads nor batch, with which the evaluation is not too costly."""
    named = condition_names(method.cost)
    if letter in INNER_WIDTHS.get(method.name, ()):
        large = LARGE_WIDTHS if stage.longest > SMALL else ()
        return [*OTHER_SIZES, *(size for size in large if _makeable(method, stage, {**sizes, letter: size}))]
    likely = NAMED_SIZES.get(letter, OTHER_SIZES)
    if letter not in named or letter not in NAMED_SIZES:
        return [size for size in likely if letter not in NAMED_SIZES or _holds(method, stage, {**sizes, letter: size})] or [min(likely)]
    least = {**dict.fromkeys(named, 1), **sizes}
    return [size for size in likely if evaluate(method.cost, {**least, letter: size}) <= stage.elements] or [min(likely)]


def _makeable(method: Method, stage: Stage, sizes: dict[str, int]) -> bool:
    """Whether neither making arrays of these sizes, of 1 where none is known yet, nor evaluating them takes too long."""
    cost = evaluate(method.cost, {**dict.fromkeys(condition_names(method.cost), 1), **sizes})
    return cost <= stage.elements and _holds(method, stage, sizes)


def _holds(method: Method, stage: Stage, sizes: dict[str, int]) -> bool:
    """Whether arrays of these sizes, and of 1 where none is known yet, are as quickly made as evaluated."""
    return max(prod(sizes.get(dim, 1) for dim in spec.dims) for spec in method.signature.inputs) <= 8 * stage.elements


def _fits(method: Method, stage: Stage, sizes: dict[str, int]) -> bool:
    """Whether the evaluation's cost, if it depends on widths or the like, is as low as that of making the arrays has to be."""
    named = condition_names(method.cost)
    return named.isdisjoint(COSTLY) or evaluate(method.cost, {**dict.fromkeys(named, 1), **sizes}) <= 8 * stage.elements


def _lengths(choose: Choose, method: Method, stage: Stage, tile: int) -> dict[str, int]:
    lengths = [letter for letter in (QUERY_LENGTHS, KEY_LENGTHS) if letter in method.signature.dims]
    if len(lengths) < 2:
        return {letter: _affordable(choose, method, letter, stage, tile) for letter in lengths}
    sizes = {letter: _length(choose, stage, tile) for letter in lengths}
    relation = choose(("equal", "free", "decode", "free", "longer", "shorter", "equal", "decode", "one key", "full rows", "full rows"))
    relation = "equal" if EQUAL_LENGTHS in method.where else relation
    queries, keys = sizes.values()
    if relation == "equal":
        queries = keys = min(keys, isqrt(stage.elements))
    elif relation == "decode":
        queries = choose((1, 1, 1, 2, 3))
    elif relation == "full rows" and tile < stage.longest:
        # Whether the last tile of keys is partial cannot be told from that of queries, which is full.
        queries, keys = tile * choose((1, 2)), choose((1, 2, 1, 3)) * tile + choose((1, -1, tile // 2))
        queries = min(queries, stage.elements // max(keys, 1) // tile * tile) or tile
    elif relation == "one key":
        queries, keys = choose((1, queries)), 1
    elif relation == "longer":
        queries, keys = sorted((queries, keys))
    elif relation == "shorter":
        keys, queries = sorted((min(queries, isqrt(stage.elements)), keys))
    # Room for several heads and sequences, unless that would undo the relation.
    room = 1 if relation in ("equal", "shorter", "full rows") else choose((4, 16) if stage.longest <= 300 else (16, 60))
    if queries * keys * room > stage.elements:
        queries = max(1, stage.elements // (keys * room))
    return {QUERY_LENGTHS: queries, KEY_LENGTHS: keys}
