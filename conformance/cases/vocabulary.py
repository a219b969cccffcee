"""Of what arrays are made: recipes and gains by what an array is, the plainest first."""

from __future__ import annotations

import itertools
from typing import Any

from conformance.cases.integers import kind_of_integers, recipes_of_integers
from conformance.cases.shapes import SMALL
from conformance.cases.values import DOMAIN_RECIPES
from oracle.catalogue import Method
from oracle.signature import ArraySpec

__all__ = ["CODES", "MASKS", "PRESENCE", "SEEDS", "integers", "sizes", "vocabulary"]

# Per array: recipes from the most plain to the most special, and gains. A query's gain scales the logits.
ROWS = (
    "normal",
    "normal",
    "normal",
    "rising",
    "falling",
    "last",
    "first",
    "spike",
    "offset",
    "negative",
    "equal",
    "ties",
    "zeros",
    "sparse",
    "spread",
)
RECIPES = {
    "initial_state": ("normal", "normal", "spread", "ones", "zeros"),
    "q": ("normal",) * 5 + ("equal", "zeros", "offset", "ones", "sparse", "spread", "subnormal"),
    "k": ROWS,
    "v": ("normal", "normal", "normal", "index", "ones", "equal", "offset", "spread", "sparse", "subnormal"),
    "bias": ("normal", "rising", "falling", "spike", "zeros", "offset", "negative"),
    "sinks": ("normal", "zeros", "offset", "negative"),
    "lses": ("normal", "empty_parts", "rising", "empty_parts", "offset", "negative", "equal", "zeros", "spike"),
}
RECIPES |= {f"{name}_pages": RECIPES[name] for name in ("k", "v")}
GAINS = {
    "initial_state": (1.0, 1.0, 10.0, 1e-3),
    "q": (1.0, 1.0, 1.0, 1.0, 10.0, 30.0, 100.0, 0.01, 400.0, 1e-30),
    "k": (1.0, 1.0, 1.0, 1.0, 3.0),
    "v": (1.0, 1.0, 1.0, 1e-3, 1e4, 1e-30),
    "bias": (1.0, 1.0, 1.0, 8.0, 50.0, 4000.0, 20000.0),
    "sinks": (1.0, 4.0, 20.0),
    "lses": (1.0, 10.0, 100.0),
}
GAINS |= {f"{name}_pages": GAINS[name] for name in ("k", "v")}
# How often an optional array is passed, by its kind.
PRESENCE = dict.fromkeys(("bool", "int", "float", "statistic", "code"), (False, True))
# Many, since the first random number of a recipe (a density, a size) is decided by the seed alone.
SEEDS = range(1000)
MASKS = (
    "random", "random", "random", "padding_right", "first_full", "empty_rows", "blocks", "late", "padding_left", "single_key",
    "checkerboard", "empty_rows", "blocks", "full", "empty",
)  # fmt: skip
CODES = ("codes", "codes", "codes", "largest", "index", "zeros")

# Where a method's array of a name is not what it is elsewhere: recipes and gains by method and name.
BY_METHOD: dict[tuple[str, str], tuple[tuple[str, ...], tuple[float, ...]]] = {
    # With longer keys the state grows from token to token until nothing is known of it: few cases are to show that.
    **dict.fromkeys(
        [("delta_rule", "k"), ("gated_delta_rule", "k")],
        (("units", "units", "units", "units", "units", "zeros", "units", "sparse"), (1.0, 1.0, 1.0, 0.5, 1.25)),
    ),
    **dict.fromkeys(
        [("delta_rule", "q"), ("gated_delta_rule", "q")],
        (("normal", "normal", "normal", "equal", "ones", "sparse", "spread", "zeros"), (1.0, 1.0, 1.0, 30.0, 1e-3)),
    ),
    # Weights are products, not exponentials: a gain shows nothing but overflow.
    **dict.fromkeys(
        itertools.product(("gated_linear_attention", "retention"), "qk"),
        (("normal", "normal", "normal", "equal", "ones", "sparse", "spread", "zeros", "spike"), (1.0, 1.0, 1.0, 30.0, 1e-3)),
    ),
    # Features are not normalised: exp of hundreds overflows every format, and of hundreds below zero nothing is left beside eps.
    **dict.fromkeys(
        [("linear_attention", "q"), ("scalar_gated_linear_attention", "q")],
        ((*RECIPES["q"], "negative"), (1.0, 1.0, 1.0, 1.0, 3.0, 10.0, 0.01, 1e-30)),
    ),
    ("linear_attention", "k"): ((*ROWS, "negative"), (1.0, 1.0, 1.0, 3.0, 0.3)),
    # The sum of a wide key opens or shuts its gate entirely.
    ("scalar_gated_linear_attention", "k"): ((*ROWS, "negative"), (1.0, 1.0, 0.3, 0.1, 3.0)),
    ("performer_attention", "q"): (RECIPES["q"], (1.0, 1.0, 1.0, 0.5, 0.2, 3.0, 10.0, 1e-30)),
    ("performer_attention", "k"): (ROWS, (1.0, 1.0, 0.5, 0.2, 3.0)),
    ("performer_attention", "projection"): (
        ("normal",) * 5 + ("ones", "sparse", "equal", "spread", "zeros"),
        (1.0, 1.0, 1.0, 0.3, 3.0, 10.0),
    ),
    ("linformer_attention", "q"): (RECIPES["q"], (1.0, 1.0, 1.0, 0.1, 10.0, 30.0, 1e-30)),
    **dict.fromkeys(
        [("linformer_attention", "e"), ("linformer_attention", "f")],
        (("normal", "normal", "normal", "fractions", "sparse", "equal", "first", "last", "ones", "offset"), (1.0, 1.0, 0.1)),
    ),
    # Most logits within a domain of a few units.
    ("chebyshev_attention", "q"): (RECIPES["q"], (1.0, 1.0, 1.0, 3.0, 0.3, 10.0, 100.0, 1e-30)),
    # Two maps that are nearly alike leave little of their difference.
    **dict.fromkeys(
        [("differential_attention", "q1"), ("differential_attention", "q2")],
        (RECIPES["q"], (1.0, 1.0, 1.0, 1.0, 10.0, 100.0, 0.01, 0.01, 400.0, 1e-30)),
    ),
    ("differential_attention", "v2"): (RECIPES["v"], GAINS["v"]),
    # Logits are products of three: with the usual gains most rows would hold one key.
    ("latent_attention", "q_nope"): (RECIPES["q"], (1.0, 0.3, 0.3, 1.0, 3.0, 30.0, 0.01, 1e-30)),
    ("latent_attention", "q_rope"): (RECIPES["q"], GAINS["q"]),
    **dict.fromkeys(
        [("latent_attention", "w_uk"), ("latent_attention", "w_uv")],
        (("normal", "normal", "normal", "sparse", "equal", "ones", "spread", "zeros", "offset"), (1.0, 0.3, 0.3, 0.1)),
    ),
    ("continuous_batching", "k"): ((*ROWS, "newest", "oldest"), GAINS["k"]),
    # A place that no token goes to keeps what it holds, whatever that is.
    **dict.fromkeys(
        itertools.product(("append_to_pages",), ("k_pages", "v_pages")), (("normal", "normal", "leftovers", "index", "spread"), (1.0,))
    ),
    # Ties, exact and near, are what a router has to decide.
    ("multi_token_prediction", "heads"): (("normal", "normal", "sparse", "equal", "one_hot", "ones", "zeros"), (0.5, 0.5, 1.0, 0.1)),
    ("multi_token_prediction", "unembedding"): (("normal", "normal", "sparse", "equal", "zeros"), (1.0, 1.0, 0.3)),
    ("multi_token_prediction", "hidden"): (("normal", "normal", "sparse", "equal", "offset", "zeros", "spread"), (1.0, 1.0, 3.0, 0.1)),
    **dict.fromkeys(
        [
            *itertools.product(("moe_layer",), ("w_in", "w_out", "w_gate", "shared_in", "shared_out", "shared_gate")),
            *itertools.product(("mixture_of_depths", "grouped_query_attention_shared_experts"), ("w_in", "w_out")),
        ],
        (("normal", "normal", "sparse", "equal", "zeros"), (0.5, 0.5, 1.0, 0.1)),
    ),
    **dict.fromkeys(
        itertools.product(("moe_layer", "mixture_of_depths"), ("hidden",)),
        (("normal", "normal", "normal", "sparse", "equal", "ties", "offset", "spread", "zeros"), (1.0, 1.0, 1.0, 3.0, 0.1)),
    ),
    ("moe_layer", "weights"): (("fractions", "distributions", "normal", "corners", "equal"), (1.0,)),
    ("mixture_of_depths", "router"): (("normal", "normal", "levels", "sparse", "zeros"), (1.0, 1.0, 0.3)),
    ("grouped_query_attention_shared_experts", "q"): (RECIPES["q"], (1.0, 1.0, 1.0, 10.0, 0.01)),
    ("grouped_query_attention_shared_experts", "v"): (("normal", "normal", "index", "ones", "equal", "offset", "sparse"), (1.0, 1.0, 0.1)),
    ("moe_topk_gating", "logits"): (
        ("normal", "normal", "normal", "levels", "near_ties", "alike", "zeros", "levels", "spread", "offset", "negative", "falling"),
        (1.0, 1.0, 1.0, 1.0, 4.0, 0.1, 20.0, 100.0),
    ),
    ("moe_topk_gating", "correction"): (("normal", "levels", "normal", "zeros", "alike"), (1.0, 0.1, 0.1, 0.01, 10.0)),
    # Every code counts, so plain numbers tell most; then zeros that share a scale, numbers halfway between codes, and tiny ones.
    ("quantize", "x"): (
        ("normal",) * 4
        + ("uneven_rows", "zero_rows", "halves", "outlier_columns", "zero_columns", "zeros", "sparse", "spread", "equal", "ones"),
        (1.0, 1.0, 1.0, 1.0, 1e-3, 1e4, 1e-30, 1e-36, 100.0),
    ),
    ("quantize_microscaling", "x"): (
        ("normal",) * 4
        + ("spread", "sparse", "uneven_rows", "zero_rows", "halves", "outlier_columns", "zero_columns", "zeros", "equal", "ones"),
        (1.0, 1.0, 1.0, 1.0, 1e-3, 1e4, 1e-30, 1e-36, 100.0),
    ),
    # The quantum of a block of keys follows their largest: with a gain, most logits are rounding of codes.
    **dict.fromkeys(
        [("fp8_attention", "k"), ("sage_attention", "k")],
        (("normal",) * 3 + ("outlier_columns", "uneven_rows", "zero_rows", *ROWS), (1.0, 1.0, 1.0, 0.3, 3.0)),
    ),
    **dict.fromkeys(
        [("fp8_attention", "q"), ("sage_attention", "q")],
        ((*RECIPES["q"], "outlier_columns", "uneven_rows", "zero_rows"), (1.0, 1.0, 1.0, 3.0, 10.0, 0.3, 0.01, 30.0, 1e-30)),
    ),
    ("fp8_attention", "v"): ((*RECIPES["v"], "uneven_rows", "zero_rows"), GAINS["v"]),
    # Numbers of tokens, and sums of weights: seldom whole, and small for an expert that few tokens choose.
    ("load_balance_cv", "loads"): (("counts", "counts", "fractions", "ones", "zeros", "large_counts"), (1.0, 1.0, 0.37, 1e-3)),
    ("native_sparse_attention", "compress_weights"): (("normal", "normal", "fractions", "ones", "sparse"), (1.0, 1.0, 0.25)),
}

# Of integers, by the kind of their domain, those that tell most more than once.
INTEGERS: dict[str, tuple[str, ...]] = {
    "index": ("integers", "distinct", "distinct", "zeros", "last"),
    "index or none": ("integers", "distinct", "distinct", "zeros", "last", "holes", "holes"),
    "context": (
        "full", "mixed", "mixed", "around_blocks", "around_blocks", "whole_blocks", "after_a_switch", "first_blocks", "some_empty", "mixed",
    ),
    "position": ("from_zero", "continued", "any", "continued", "any", "padded", "continued_far", "far", "zeros"),
    "block-table": ("in_order", "scattered", "scattered", "reversed", "stale", "shared", "repeated", "holes", "without_first"),
}  # fmt: skip

# Options that have to fit each other, or of which few values tell much: what is drawn, by method and name.
SIZES: dict[tuple[str, str], tuple[Any, ...]] = {
    **dict.fromkeys([("fp8_attention", "query_block"), ("fp8_attention", "key_block")], (4, 2, 16, 3, 8, 64, 5, 1, 32)),
    ("sage_attention", "query_block"): (4, 2, 16, 3, 8, 64, 5, 1, 32),
    ("sage_attention", "key_block"): (16, 4, 16, 32, 3, 8, 64, 16, 5),
    **dict.fromkeys([("quantize", "block_size"), ("dequantize", "block_size")], (4, 2, 3, 16, 5, 8, 64, 1, 32)),
    ("differential_attention", "lam"): (0.8, 0.5, 0.2, 1.0, 0.999, 0.35, 0.0, -0.5, 2.0),
    ("differential_attention", "lam_init"): (0.8, None, 0.2, None, 0.35, None, 0.0),
    ("expert_capacity", "tokens"): (10, 64, 1, 7, 33, 100, 0, 1000, 4096, 2**24 + 1),
    ("expert_capacity", "experts"): (4, 8, 1, 3, 7, 64, 128, 60, 256),
    ("expert_capacity", "k"): (None, 2, 1, 2, 3, 8),
    ("expert_capacity", "capacity_factor"): (1.25, None, 2.0, 1.5, 0.5, 0.75, 1.0),
    ("expert_capacity", "min_capacity"): (None, None, 4, 1, 0, 8, 64),
    ("moe_layer", "capacity"): (None, 1, 2, 0, 3, 4, 8),
    ("mixture_of_depths", "capacity"): (None, 2, 1, 3, None, 4, 0, 8, 16),
    ("mixture_of_depths", "threshold"): (None, 0.0, None, 0.5, -0.3),
    ("moe_topk_gating", "k"): (2, 1, 2, 3, 4, 1, 2, 6, 8),
    ("moe_topk_gating", "groups"): (None, None, 2, 3, 4, 8, 1, 2),
    ("moe_topk_gating", "top_groups"): (None, 1, 2, 1, 3, 4),
    ("native_sparse_attention", "compress_block"): (2, 4, 1, 2, 4, 8, 6, 3, 16),
    ("native_sparse_attention", "compress_stride"): (1, 2, 1, 2, 4, 3, 8),
    ("native_sparse_attention", "select_block"): (4, 2, 4, 2, 8, 4, 6, 3, 16),
    ("native_sparse_attention", "select_count"): (1, 2, 1, 3, 2, 4, 5),
    ("native_sparse_attention", "window"): (2, 1, 3, 4, 1, 8, 16, 5),
    ("rotary_embedding", "rotary_width"): (None, None, 2, 4, 2, 8, 16, 0, 32),
}

# Beyond the tiles of many kernels: drawn as well where a case may have so many tokens or columns that they are not all of them.
LARGE_SIZES: dict[tuple[str, str], tuple[Any, ...]] = {
    **dict.fromkeys(
        [
            *itertools.product(("fp8_attention", "sage_attention"), ("query_block", "key_block")),
            *itertools.product(("quantize", "dequantize"), ("block_size",)),
        ],
        (128, None),
    ),
    ("moe_layer", "capacity"): (16, 33),
    ("mixture_of_depths", "capacity"): (33, 100),
    ("native_sparse_attention", "compress_block"): (32, 32),
    ("native_sparse_attention", "compress_stride"): (16, 16),
    ("native_sparse_attention", "select_block"): (32, 64, 64),
    ("native_sparse_attention", "select_count"): (8, 16),
    ("native_sparse_attention", "window"): (20, 33, 64, 100),
    ("rotary_embedding", "rotary_width"): (64, 128),
}  # fmt: skip


def sizes(method: Method, name: str, longest: int) -> tuple[Any, ...]:
    """What is drawn of an option in cases up to some length; nothing where the option needs no values of its own."""
    return SIZES.get((method.name, name), ()) + (LARGE_SIZES.get((method.name, name), ()) if longest > SMALL else ())


def integers(method: Method, spec: ArraySpec) -> tuple[str, ...]:
    """Recipes of an array of integers."""
    domain = method.domains[spec.name]
    return INTEGERS.get(kind_of_integers(domain)) or recipes_of_integers(domain)


def vocabulary(method: Method, spec: ArraySpec) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Recipes and gains of an array of floats."""
    if (method.name, spec.name) in BY_METHOD:
        return BY_METHOD[method.name, spec.name]
    if spec.name in method.domains:
        return DOMAIN_RECIPES[method.domains[spec.name]], (1.0,)
    return RECIPES.get(spec.name, ROWS), GAINS.get(spec.name, (1.0,))
