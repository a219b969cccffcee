"""The calls that a benchmark makes: plain numbers, one length after the other, options as models use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isqrt
from random import Random
from typing import Any

from conformance.cases.case import ArrayRecipe, Case, plainest
from conformance.cases.options import OptionTextError, as_argument, parse_option
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.errors import UsageError
from conformance.registry import Implementation
from oracle import METHODS
from oracle.catalogue import Method
from oracle.options import allows, in_words

__all__ = ["benched_case", "refuses", "usual_options"]

# Options that give a method the shape that its paper measures it in, from the length.
OPTIONS: dict[str, Callable[[int], Mapping[str, Any]]] = {
    "local_global_attention": lambda length: {"window": 64, "global_tokens": (0, length // 2) if length > 1 else (0,)},
    "strided_attention": lambda length: {"stride": max(isqrt(length), 1)},
    "fixed_attention": lambda length: {"stride": max(isqrt(length), 1), "c": max(isqrt(length) // 8, 1)},
    "bigbird_attention": lambda length: {"block_size": 64, "window_blocks": 3, "global_blocks": 2},
    "block_sparse_attention": lambda length: {"block_q": 64, "block_k": 64},
    "pattern_attention": lambda length: {"pattern": "band:64"},
    "native_sparse_attention": lambda length: {
        "compress_block": 32, "compress_stride": 16, "select_block": 64, "select_count": 16, "window": 512,
    },
    "chebyshev_attention": lambda length: {"degree": 10, "domain": (-4.0, 4.0)},
    "differential_attention": lambda length: {"lam": 0.8},
}  # fmt: skip

# Draws of a case until one has all that the method requires.
DRAWS = 200


def usual_options(implementation: Implementation, length: int, asked: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The options of the call of one length: those in which the method's paper measures it, and those that are asked for.

    Args:
        implementation: to call.
        length: of queries and keys.
        asked: options as in the line of a case; those that the method does not have, or not with such a value, are left out.
    """
    method = METHODS[implementation.method]
    usual = dict(OPTIONS[method.name](length)) if method.name in OPTIONS else {}
    accepted = {name: text for name, text in (asked or {}).items() if name in method.options and not refuses(method, name, text)}
    return usual | {name: parse_option(method.options[name], text) for name, text in accepted.items()}


def refuses(method: Method, name: str, text: str) -> str:
    """Why an option of a method cannot have a value; "" if it can."""
    kind = method.options[name]
    try:
        value = as_argument(kind, parse_option(kind, text))
    except OptionTextError as error:
        return f"{name}={text!r}, but {error} [{method.name}]"
    return "" if allows(kind, value) else f"{name}={text!r}, but should be {in_words(kind)} [{method.name}]"


def benched_case(
    implementation: Implementation, dtype: str, length: int, sizes: Mapping[str, int], usual: Mapping[str, Any] | None = None
) -> Case:  # fmt: skip
    """The call of one length.

    Args:
        implementation: whose restrictions it keeps.
        dtype: of the arrays.
        length: of queries and keys.
        sizes: of b, h, g, d and e.
        usual: options; by default `usual_options`.

    Raises:
        UsageError: the implementation takes no such call.
    """
    method, rng = METHODS[implementation.method], Random(0)
    given = {**sizes, "l": length, "s": length}
    usual = usual_options(implementation, length) if usual is None else usual
    for _ in range(DRAWS):
        drawn = random_case(rng, implementation, dtype, STAGES[0])
        required = {name: value for name, value in drawn.options.items() if name in method.required_keywords}
        required |= {name: value for name, value in usual.items() if name in (*method.required_keywords, *implementation.options)}
        dims = {letter: given.get(letter, size) for letter, size in drawn.dims.items()}
        arrays = {
            spec.name: _plain(drawn.arrays[spec.name], number, plainest(method, spec), spec.kind)
            for number, spec in enumerate(method.signature.required)
        }
        for options in (required, {**drawn.options, **required}):  # some methods need one of several options
            made = replace(drawn, dims=dims, arrays=arrays, options=options, tunables={}, warm=False).settled()
            if made.consistent and implementation.admits(made.facts()):
                return made
    raise UsageError(f"{implementation.name} takes no plain call of length {length} in {dtype}, but a benchmark needs one")


def _plain(drawn: ArrayRecipe, number: int, recipe: str, kind: str) -> ArrayRecipe:
    return ArrayRecipe(drawn.recipe if kind == "int" else recipe, number)
