"""The case: one call of a method, described in a line.

    attention float32 b=1 h=2 g=1 l=5 s=17 d=4 e=4 causal=True q=normal(0)*30 k=rising(1)@strided v=index(2) block_k=16

Dimensions, options and tunables are ``name=value``. An array is ``recipe(seed)``, then optionally ``[1,h,1,s]`` (its
axes, where it broadcasts), ``*gain``, ``!garbage`` (huge finite numbers where nothing may read, or ``!nan``: NaN there, or
where it belongs to others as far as the method tells that apart) and ``@layout``. ``calls=warm`` makes another call of the
same shapes first, to meet whatever an implementation keeps.
``calls=12`` makes so many identical calls in a fresh process (2 at least), and ``CASE then CASE`` a fresh process in which the first
case comes before the second, which is the one that is judged. ``invariant=name`` judges the call by an invariant (see
`conformance.invariants`) instead of by the oracle.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from conformance.cases.codes import make_codes
from conformance.cases.integers import make_integers, recipes_of_integers
from conformance.cases.layouts import broadcast_axis
from conformance.cases.masks import make_mask
from conformance.cases.options import as_argument
from conformance.cases.values import DOMAIN_RECIPES, make_floats
from oracle import METHODS
from oracle.catalogue import PLAIN_DTYPES, Method
from oracle.codes import CODE_FORMATS, CodeFormat
from oracle.conditions import evaluate, holds
from oracle.domains import repeats
from oracle.formats import FORMATS, Format
from oracle.signature import ArraySpec

__all__ = ["THEN", "ArrayRecipe", "Case", "condition_names", "plainest"]

# Joins the line of a case to that of the one after it.
THEN = "then"

# Dtypes of outputs that are no floats, by kind.
EXACT_DTYPES = {"int": ("int32", "int64"), "bool": ("bool",)}

# Finite garbage stays below this, so that its product with a query does not overflow float32 and turn an additive mask
# into inf - inf, which is no fault of the implementation.
LARGEST_GARBAGE = 2.0**100


@dataclass(frozen=True)
class ArrayRecipe:
    """How one array is made.

    Attributes:
        recipe: name in `FLOAT_RECIPES`, `CODED_RECIPES`, `MASK_RECIPES`, `CODE_RECIPES` or `recipes_of_integers`.
        seed: of its random numbers.
        axes: a dimension's letter or "1" for every axis; None for the full shape.
        gain: factor.
        garbage: ``garbage`` or ``nan`` in elements that the method never reads; "" for none. Of a method that tells which of them
            may hold NaN, ``nan`` is NaN in these and huge numbers in the others.
        layout: in memory.
    """

    recipe: str
    seed: int = 0
    axes: tuple[str, ...] | None = None
    gain: float = 1.0
    garbage: str = ""
    layout: str = "contiguous"

    def __str__(self) -> str:
        return "".join((
            f"{self.recipe}({self.seed})",
            "" if self.axes is None else f"[{','.join(self.axes)}]",
            "" if self.gain == 1 else f"*{self.gain:g}",
            f"!{self.garbage}" if self.garbage else "",
            "" if self.layout == "contiguous" else f"@{self.layout}",
        ))  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One call; see the module's docstring for the line that it prints as.

    Attributes:
        method: name of the method.
        dtype: storage dtype of its arrays.
        dims: size of every dimension of the signature.
        arrays: recipe of every array that is passed.
        options: the options that are not arrays, where set.
        tunables: values of the implementation's tunables.
        warm: whether another call comes first.
        calls: how many identical calls to make in a fresh process; 0 for the usual two, in any process.
        earlier: cases to run before it in a fresh process; none for any process.
        invariant: by which it is judged; "" for the oracle.
    """

    method: str
    dtype: str
    dims: Mapping[str, int]
    arrays: Mapping[str, ArrayRecipe]
    options: Mapping[str, Any] = field(default_factory=dict)
    tunables: Mapping[str, int] = field(default_factory=dict)
    warm: bool = False
    calls: int = 0
    earlier: tuple[Case, ...] = ()
    invariant: str = ""

    def __str__(self) -> str:
        return self._line

    @cached_property
    def _line(self) -> str:  # the key by which cases are remembered
        parts = [f"{case} {THEN}" for case in self.earlier] + [self.method, self.dtype]
        for group in (self.dims, self.options, self.arrays, self.tunables):
            parts += [f"{name}={_show(value)}" for name, value in group.items()]
        parts += ["calls=warm"] * self.warm + [f"calls={self.calls}"] * (self.calls > 0)
        return " ".join(parts + [f"invariant={self.invariant}"] * bool(self.invariant))

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def specification(self) -> Method:
        """The method itself."""
        return METHODS[self.method]

    @property
    def size(self) -> int:
        """Elements of the largest array that a plain implementation would hold; orders cases by cost."""
        dims = self.dims
        if "l" not in dims and "b" in dims and "h" in dims:  # what else a query reads, only the method knows
            return int(evaluate(self.specification.cost, dims)) * max(dims.get("d", 1), dims.get("e", 1))
        return (
            dims.get("b", 1)
            * dims.get("h", 1)
            * dims.get("l", 1)
            * max(dims.get("s", 1), dims.get("d", 1), dims.get("e", 1))
            * dims.get("n", 1)
        )

    def facts(self) -> dict[str, Any]:
        """The values of `condition_names`; options that are not set may be missing."""
        broadcast = [spec for spec in self.specification.signature.optional if spec.broadcast and spec.name in self.arrays]
        return {
            **self.dims, **dict.fromkeys(self.arrays, True), **self.options, "dtype": self.dtype,
            "contiguous": all(recipe.layout == "contiguous" for recipe in self.arrays.values()),
            **{_rank(spec): len(self.axes(spec.name)) for spec in broadcast},
        }  # fmt: skip

    def contiguous(self) -> Case:
        """The same call on arrays in row-major order."""
        return replace(self, arrays={name: replace(recipe, layout="contiguous") for name, recipe in self.arrays.items()})

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array."""
        return tuple(1 if axis == "1" else self.dims[axis] for axis in self.axes(name))

    def axes(self, name: str) -> tuple[str, ...]:
        """Axes of an array by letter, "1" where it broadcasts."""
        spec = self._spec(name)
        return spec.dims if (axes := self.arrays[name].axes) is None else axes

    def settled(self) -> Case:
        """The same call with the dimensions that follow from others put right, and positions beyond the length left out.

        Nor do arrays repeat what has to differ from element to element.
        """
        method, dims, options = self.specification, self.dims, self.options
        differing = [name for name, domain in method.domains.items() if name in self.arrays and not repeats(domain)]
        if any(self.arrays[name].layout.startswith("expanded") for name in differing):
            plain = {name: replace(self.arrays[name], layout="contiguous") for name in differing}
            return replace(self, arrays={**self.arrays, **plain}).settled()
        if not method.derived and "positions" not in method.options.values():
            return self
        length = dims.get("s", dims.get("l", 0))
        options = {
            name: tuple(one for one in value if one < length) if method.options[name] == "positions" else value
            for name, value in options.items()
        }
        return replace(self, dims={**dims, **method.derive(dims, options)}, options=options)

    @property
    def consistent(self) -> bool:
        """Whether dimensions and options satisfy the method's conditions."""
        facts = {**dict.fromkeys(self.arrays, True), **self.specification.given(self.options), **self.dims}
        return self.dims.get("g", 1) > 0 and all(holds(condition, facts) for condition in self.specification.where)

    def called_options(self) -> dict[str, Any]:
        """The options as the method and the implementation get them."""
        return {name: as_argument(self.specification.options[name], value) for name, value in self.options.items()}

    def arguments(self, meaning: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The arguments by name: contiguous arrays in their storage dtypes, and the options that are set.

        Args:
            meaning: conventions that decide which elements are never read, where garbage goes.
        """
        made: dict[str, np.ndarray] = {}
        for name in sorted(self.arrays, key=lambda name: len(self.specification.related(name))):
            made[name] = self._make(name, self.arrays[name], made)
            if (repeated := broadcast_axis(self.arrays[name].layout, made[name].shape, self.axes(name))) is not None:
                made[name] = np.broadcast_to(np.take(made[name], [0], axis=repeated), made[name].shape).copy()
        arguments = {**{name: made[name] for name in self.arrays}, **self.called_options()}
        return {**arguments, **self._filled({**arguments, **(meaning or {})})}

    def _filled(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The arrays that hold garbage."""
        method = self.specification
        holding = [name for name, recipe in self.arrays.items() if recipe.garbage and not recipe.layout.startswith("expanded")]
        if not holding or method.unread is None:
            return {}
        unread = method.unread(arguments)
        foreign = unread if method.foreign is None else method.foreign(arguments)
        filled = {}
        for name in (name for name in holding if name in unread):
            array, recipe = arguments[name], self.arrays[name]
            if recipe.garbage == "nan":
                array = np.where(foreign[name], np.nan, array)
            if recipe.garbage != "nan" or method.foreign is not None:
                huge = unread[name] if recipe.garbage != "nan" else unread[name] & ~foreign[name]
                array = np.where(huge, self._huge(recipe, name), array)
            filled[name] = array.astype(arguments[name].dtype)
        return filled

    def without_garbage(self) -> Case:
        """The same call with plain numbers where nothing may read: it has the same answer."""
        if not any(recipe.garbage for recipe in self.arrays.values()):
            return self
        return replace(self, arrays={name: replace(recipe, garbage="") for name, recipe in self.arrays.items()})

    def plain(self) -> Case:
        """The same call on normally distributed numbers in contiguous arrays: most mistakes show in it."""
        arrays = {
            name: ArrayRecipe(plainest(self.specification, self._spec(name)), recipe.seed, recipe.axes)
            if self._spec(name).kind not in PLAIN_DTYPES
            else recipe
            for name, recipe in self.arrays.items()
        }
        return replace(self, arrays=arrays, warm=False)

    def warm_up(self, options: Collection[str] = ()) -> Case:
        """The call that comes first: same shapes, other values, plain layouts, perhaps one optional array more or less.

        Args:
            options: the keywords that the implementation takes.
        """
        arrays = {name: replace(recipe, seed=recipe.seed + 1000, layout="contiguous", garbage="") for name, recipe in self.arrays.items()}
        arrays = {
            name: recipe if recipe.recipe != "zeros" else replace(recipe, recipe=plainest(self.specification, self._spec(name)))
            for name, recipe in arrays.items()
        }
        alike = replace(self, arrays=dict(arrays), warm=False, calls=0, earlier=())
        optional = [spec for spec in self.specification.signature.optional if spec.name in options]
        if optional:
            choice = zlib.crc32(str(self).encode())  # stable, as hash() is not from run to run
            spec = optional[choice // 2 % len(optional)]
            if spec.name in arrays and choice % 2:
                del arrays[spec.name]
            elif spec.name not in arrays:
                arrays[spec.name] = ArrayRecipe(plainest(self.specification, spec))
        other = replace(alike, arrays=arrays)
        return other if other.consistent else alike

    def output_shape(self, spec: ArraySpec) -> tuple[int, ...]:
        """Shape of an output."""
        return tuple(self.dims[dim] for dim in spec.dims)

    def stored_shape(self, spec: ArraySpec) -> tuple[int, ...]:
        """Shape in which an output comes: several codes of an output may share a byte."""
        shape, form = self.output_shape(spec), self.code_format(spec)
        return shape if form is None else (*shape[:-1], -(-shape[-1] // form.packed))

    def output_dtypes(self, spec: ArraySpec) -> tuple[str, ...]:
        """Dtypes in which an output may come, by name."""
        if spec.kind in EXACT_DTYPES:
            return EXACT_DTYPES[spec.kind]
        form = self.code_format(spec)
        if form is not None:
            return (form.name,) if form.name == "int8" else ("uint8",) if form.packed > 1 else (form.name, "uint8")
        return tuple(sorted({self.dtype, self.storage(spec).name}))

    def output_dtype(self, spec: ArraySpec) -> Format | str:
        """The format in which an output is stored, or the name of its dtype where that is not one of floats."""
        return EXACT_DTYPES[spec.kind][-1] if spec.kind in EXACT_DTYPES else self.storage(spec)

    def storage(self, spec: ArraySpec) -> Format:
        """Format in which an array of floats is stored."""
        if spec.kind == "code":
            return FORMATS["float64"]  # in which all that codes stand for is exact
        form = FORMATS[self.dtype]
        return FORMATS["float32"] if spec.kind == "statistic" and form.is_half else form

    def code_format(self, spec: ArraySpec) -> CodeFormat | None:
        """The format of an array of codes; None for other arrays."""
        method = self.specification
        if spec.kind != "code" or method.coding is None:
            return None
        return CODE_FORMATS[method.coding(method.given(self.options))[spec.name]]

    def _spec(self, name: str) -> ArraySpec:
        return next(spec for spec in self.specification.signature.inputs if spec.name == name)

    def _make(self, name: str, recipe: ArrayRecipe, made: Mapping[str, np.ndarray]) -> np.ndarray:
        spec, shape, method = self._spec(name), self.shape(name), self.specification
        if spec.kind == "bool":
            return make_mask(recipe.recipe, recipe.seed, shape)
        if spec.kind == "int":
            others = tuple(made[other] for other in method.related(name))
            return make_integers(recipe.recipe, recipe.seed, shape, method.domains[name], self.dims, others)
        if (form := self.code_format(spec)) is not None:
            return make_codes(recipe.recipe, recipe.seed, shape, form)
        return make_floats(recipe.recipe, recipe.seed, recipe.gain, shape, self.storage(spec))

    def _huge(self, recipe: ArrayRecipe, name: str) -> np.ndarray:
        signs = np.random.default_rng(recipe.seed).choice([-1.0, 1.0], self.shape(name))
        return signs * min(LARGEST_GARBAGE, FORMATS[self.dtype].largest / 4)


def plainest(method: Method, spec: ArraySpec) -> str:
    """The plainest recipe of an array that holds something."""
    if spec.kind == "int":
        return recipes_of_integers(method.domains[spec.name])[0]
    of_kind = {"bool": "random", "code": "codes"}
    return of_kind.get(spec.kind) or DOMAIN_RECIPES.get(method.domains.get(spec.name, ""), ("normal",))[0]


def condition_names(method: Method) -> dict[str, str]:
    """Every name that a condition may use, and what it stands for; `Case.facts` gives the values."""
    arrays = method.signature.optional
    return {
        **dict.fromkeys(method.signature.dims, "size of the dimension"),
        **dict.fromkeys(method.options, "value, None where not set"),
        **{spec.name: "True where passed, else None" for spec in arrays},
        **{_rank(spec): "number of axes where passed, else None" for spec in arrays if spec.broadcast},
        "contiguous": "whether every array lies in memory in row-major order",
        "dtype": "storage dtype",
    }


def _rank(spec: ArraySpec) -> str:
    return f"{spec.name}_rank"


def _show(value: Any) -> str:
    return str(value).replace(" ", "")
