"""From an implementation to its cases.

Everything is a choice from a short list, simplest first. The same code serves a seeded random source, whose draws are
independent (Hypothesis's own generation mutates its previous example most of the time, which repeats structure and so
misses conjunctions of options), and a Hypothesis strategy, for tests and for the directed search.
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from random import Random
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from conformance.cases.case import ArrayRecipe, Case
from conformance.cases.layouts import LAYOUTS
from conformance.cases.options import Choose, draw_option
from conformance.cases.shapes import COMMON_TILES, Stage, dimensions
from conformance.cases.vocabulary import CODES, MASKS, PRESENCE, SEEDS, integers, sizes, vocabulary
from conformance.errors import UsageError
from conformance.registry import Implementation, Tunable
from oracle import get_method
from oracle.catalogue import Method
from oracle.signature import ArraySpec

__all__ = ["cases", "draw_case", "random_case"]


@st.composite
def cases(draw: st.DrawFn, implementation: Implementation, dtype: str, stage: Stage) -> Case:
    """The Hypothesis strategy of an implementation's cases."""
    made = draw_case(lambda options: draw(st.sampled_from(options)), implementation, dtype, stage)
    assume(made is not None)
    assert made is not None, "assume has left"
    return made


def random_case(rng: Random, implementation: Implementation, dtype: str, stage: Stage) -> Case:
    """An independent random case."""
    for _ in range(1000):
        made = draw_case(rng.choice, implementation, dtype, stage)
        if made is not None:
            return made
    restrictions = " and ".join(implementation.restrictions)
    raise UsageError(f"restrictions={restrictions!r} exclude practically every case of {implementation.name}, but should leave some")


def draw_case(choose: Choose, implementation: Implementation, dtype: str, stage: Stage) -> Case | None:
    """A case for an implementation; None where its restrictions exclude what was drawn."""
    method = get_method(implementation.method)
    tile, tunables = _tunables(choose, implementation, stage)
    dims = dimensions(choose, method, stage, tile)
    drawn = {
        name: choose(values)
        if (values := sizes(method, name, stage.longest))
        else draw_option(choose, kind, dims, tile, method.default(name))
        for name, kind in method.options.items()
        if name in implementation.options
    }
    options = {name: value for name, value in drawn.items() if value is not None}
    plain = choose((True, False, False, False))
    arrays = {
        spec.name: _array(choose, method, spec, plain)
        for spec in method.signature.inputs
        if not spec.optional or (spec.name in implementation.options and choose(PRESENCE[spec.kind]))
    }
    if method.visible is not None and choose((False,) * 14 + (True,)):
        arrays, options = _far_below(choose, arrays, options)
    arrays = _alike(choose, method, arrays)
    dims = _telling(choose, dims, arrays)
    arrays = _with_garbage(choose, method, arrays, options)
    case = Case(implementation.method, dtype, dims, arrays, options, tunables, warm=choose((False, False, True))).settled()
    if not case.consistent:
        return None
    if implementation.strided and implementation.admits(case.facts()):
        return case
    # Few drawn cases have no array in an odd layout: a restriction to these would exclude nearly everything.
    contiguous = case.contiguous()
    return contiguous if implementation.admits(contiguous.facts()) else None


def _alike(choose: Choose, method: Method, arrays: dict[str, ArrayRecipe]) -> dict[str, ArrayRecipe]:
    """Queries and keys of packed sequences that are split alike, in half of the cases: else few sequences have some of both."""
    edges = [name for name, domain in method.domains.items() if domain.startswith("cumulative ") and name in arrays]
    if len(edges) < 2 or choose((False, True)):
        return arrays
    first = arrays[edges[0]]
    return {**arrays, **{name: replace(arrays[name], recipe=first.recipe, seed=first.seed) for name in edges[1:]}}


def _telling(choose: Choose, dims: dict[str, int], arrays: dict[str, ArrayRecipe]) -> dict[str, int]:
    """Dimensions under which the arrays of lower rank and the documents of a mask show what an implementation takes them for."""
    ranks = {len(recipe.axes) for recipe in arrays.values() if recipe.axes is not None}
    mask, batch = arrays.get("mask"), dims.get("b", 0)
    if mask is not None and mask.recipe == "blocks" and {"l", "s"} <= set(dims) and choose((True, True, False)):
        tokens = isqrt(dims["l"] * dims["s"])
        return {**dims, "l": tokens, "s": tokens}  # packed documents have as many queries as keys
    # Which axes a mask is taken for shows only where two of them have one size.
    if batch > 1 and 3 in ranks and "g" in dims and choose((True, False)):
        return {**dims, "h": batch, "g": batch}
    if batch > 1 and 2 in ranks and {"l", "s"} <= set(dims) and choose((True, False, False)):
        return {**dims, "l": batch}
    return dims


def _tunables(choose: Choose, implementation: Implementation, stage: Stage) -> tuple[int, dict[str, int]]:
    """A tile size to aim the lengths at, and a value for every tunable."""
    small = stage.longest <= 20
    tile = choose([tile for tile in COMMON_TILES if tile <= stage.longest and (not small or tile <= 16)])
    drawn = {name: choose(_tunable(tunable, tile, small)) for name, tunable in implementation.tunables.items()}
    blocks = [value for name, value in drawn.items() if implementation.tunables[name].kind != "count" and value > 1]
    return (choose(blocks) if blocks else tile), drawn


def _tunable(tunable: Tunable, tile: int, small: bool) -> tuple[int, ...]:
    if tunable.kind == "choice":
        return tunable.choices
    if tunable.kind == "count":
        return (1, 2, 3, 4, 7, 16)
    # Odd tiles and a tile larger than any length; tiles of one element only where that is cheap.
    return (tile, 16, 5, 1, 2, 3, 64) if small else (tile, 32, 17, 24, 512, tile)


def _array(choose: Choose, method: Method, spec: ArraySpec, plain: bool) -> ArrayRecipe:
    """How an array is made. Where all are plain, every option shows; among extreme numbers one often hides the others."""
    seed, layout = choose(SEEDS), choose(("contiguous", "contiguous", *LAYOUTS))
    axes = _broadcast(choose, spec) if spec.broadcast or spec.loose else None
    if spec.kind == "bool":
        recipe = choose(MASKS)
        if recipe == "blocks" and axes is not None and not {"l", "s"} & set(spec.dims) <= set(axes):
            axes = None  # documents are of queries and keys
        return ArrayRecipe(recipe, seed, axes, layout=layout)
    if spec.kind == "int":
        return ArrayRecipe(choose(integers(method, spec)), seed, axes, layout=layout)
    if spec.kind == "code":
        return ArrayRecipe("codes" if plain else choose(CODES), seed, axes, layout=layout)
    recipes, gains = vocabulary(method, spec)
    if plain:
        return ArrayRecipe(recipes[0], seed, axes, gains[0], layout=layout)
    return ArrayRecipe(choose(recipes), seed, axes, choose(gains), layout=layout)


def _broadcast(choose: Choose, spec: ArraySpec) -> tuple[str, ...] | None:
    """Full shape, the last axes only, or some axes replaced by 1."""
    if spec.loose:
        return tuple("1" if dim in spec.loose and choose((False, True)) else dim for dim in spec.dims)
    kept = choose((len(spec.dims),) * 4 + (2, 2, 3, 1, 0, 0))
    if kept:
        return spec.dims[-kept:] if kept < len(spec.dims) else None
    return tuple(choose((axis, axis, "1")) if axis in "ls" else choose(("1", axis)) for axis in spec.dims)


def _far_below(choose: Choose, arrays: dict[str, ArrayRecipe], options: dict[str, Any]) -> tuple[dict[str, ArrayRecipe], dict[str, Any]]:
    """All logits far below any sentinel that stands for minus infinity; often after tiles that hold no key at all."""
    lifting = ("sinks", "softcap", "scale")
    arrays = {name: recipe for name, recipe in arrays.items() if name not in lifting}
    arrays["q"] = replace(arrays["q"], recipe="offset", gain=choose((30.0, 400.0, 400.0)))
    arrays["k"] = replace(arrays["k"], recipe="negative", gain=3.0)
    if "mask" in arrays and choose((True, False)):
        arrays["mask"] = replace(arrays["mask"], recipe="late")
    return arrays, {name: value for name, value in options.items() if name not in lifting}


def _with_garbage(choose: Choose, method: Method, arrays: dict[str, ArrayRecipe], options: dict[str, Any]) -> dict[str, ArrayRecipe]:
    """Huge numbers where nothing may read, in half of the cases in which some elements are never read.

    Where some may hold NaN, they do in most cases: a leak of it is a finding.
    """
    may_hide = {"mask", "causal", "window"} & set(method.keywords)
    hides = bool(not may_hide or may_hide & {*arrays, *options})
    if method.unread is None or not (hides or method.foreign):
        return arrays
    kind = choose(("", "garbage")) if method.foreign is None else choose(("nan", "nan", "nan", "garbage", ""))
    if not kind:
        return arrays
    # A query of any size makes a huge key overflow, which is no fault of the implementation.
    huge = kind == "garbage" or bool(may_hide & {*arrays, *options})
    if method.foreign is not None:  # what repeats in memory holds nothing of its own
        repeating = [name for name in method.hiding if arrays[name].layout.startswith("expanded")]
        arrays = {**arrays, **{name: replace(arrays[name], layout="contiguous") for name in repeating}}
    filled = {
        name: replace(arrays[name], garbage=kind, gain=1.0 if name == method.hiding[0] and huge else arrays[name].gain)
        for name in method.hiding
        if not arrays[name].layout.startswith("expanded") and choose((True, True, False))
    }
    if not filled:
        return arrays
    plain = {"q": ArrayRecipe("normal", arrays["q"].seed, layout=arrays["q"].layout)} if huge and "q" in arrays else {}
    return {**arrays, **plain, **filled}
