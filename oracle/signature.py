"""The shape-signature language: one line says which arrays a method takes and returns.

    "q: b h l d, k: b g s d, v: b g s e, mask?: bool ~(b h l s), sinks?: h -> out: b h l e, lse: statistic b h l"

* a letter, or a word such as ``block_size``, is a dimension; the same one means the same size everywhere;
* ``name?`` is an optional keyword argument, a bare ``name`` a required positional one;
* ``~(...)`` means "anything that broadcasts to this shape", ``b|1`` an axis that may have size 1 instead;
* a word before the shape is the kind of its elements: ``bool``, ``int``, ``statistic`` (a float that kernels of 16-bit
  formats keep in float32), ``code`` (a number of a format of at most 8 bits, which an option names) or nothing (a float of
  the call's dtype); outputs of ints come in int32 or int64 and have no tolerance;
* no letter at all is a single number: ``loss: statistic``;
* a single unnamed output is called ``out``; ``name?`` is an output that an implementation may leave out.

The signature drives validation and its messages, the generation of cases, and the documentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

__all__ = ["ArraySpec", "ShapeError", "Signature", "parse_signature"]

_ARRAY = re.compile(
    r"^(?:(?P<name>\w+)(?P<optional>\?)?\s*:\s*)?(?:(?P<kind>bool|int|statistic|code|float)(?:\s+|$))?(?P<shape>~\([\w\s]*\)|[\w\s|]*)$"
)


class ShapeError(ValueError):
    """An argument does not fit the shape signature of the method; the message names it, what it is and what it should be."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of a signature.

    Attributes:
        name: of the argument or output.
        dims: its dimensions by letter.
        kind: of its elements: float, bool, int, code or statistic.
        optional: whether it may be left out, of a call or of what is returned.
        broadcast: whether it may have fewer axes, or axes of size 1.
        loose: dimensions whose axis may have size 1.
    """

    name: str
    dims: tuple[str, ...]
    kind: str = "float"
    optional: bool = False
    broadcast: bool = False
    loose: tuple[str, ...] = ()

    def __str__(self) -> str:
        shape = " ".join(f"{dim}|1" if dim in self.loose else dim for dim in self.dims)
        words = [
            f"{self.name}{'?' * self.optional}:",
            *([self.kind] if self.kind != "float" else []),
            f"~({shape})" if self.broadcast else shape,
        ]
        return " ".join(words)


@dataclass(frozen=True)
class Signature:
    """The arrays that a method takes and returns, in order."""

    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]

    @cached_property
    def required(self) -> tuple[ArraySpec, ...]:
        """Positional arguments."""
        return tuple(spec for spec in self.inputs if not spec.optional)

    @cached_property
    def optional(self) -> tuple[ArraySpec, ...]:
        """Arrays that are keyword options."""
        return tuple(spec for spec in self.inputs if spec.optional)

    @cached_property
    def dims(self) -> tuple[str, ...]:
        """All dimension letters in order of appearance."""
        return tuple(dict.fromkeys(dim for spec in (*self.inputs, *self.outputs) for dim in spec.dims))

    def bind(
        self, shapes: Mapping[str, tuple[int, ...]], call: str, derive: Callable[[dict[str, int]], dict[str, int]] = lambda sizes: {}
    ) -> dict[str, int]:  # fmt: skip
        """Match the shapes of the arguments against the signature.

        Args:
            shapes: shape of every array that was passed, by name.
            call: how to describe the call in an error.
            derive: from the sizes of the other dimensions to those that follow from them.

        Returns:
            The size of every dimension.

        Raises:
            ShapeError: an argument is missing, has the wrong number of axes or a size that disagrees.
        """
        sizes: dict[str, int] = {}
        owners: dict[str, str] = {}
        described = ", ".join(f"{name}: {_show(shape)}" for name, shape in shapes.items())
        context = f"[{call}({described})]"
        derived: dict[str, int] = {}
        for spec in sorted(self.inputs, key=lambda spec: (spec.broadcast, bool(spec.loose))):
            if spec.broadcast and not derived:
                derived = _derived(derive, sizes, owners, context)
            if spec.name not in shapes:
                if spec.optional:
                    continue
                raise ShapeError(f"{spec.name} is missing, but should be an array ({' '.join(spec.dims)}) {context}")
            shape = tuple(shapes[spec.name])
            if spec.broadcast:
                _check_broadcast(spec, shape, sizes, context)
                continue
            if len(shape) != len(spec.dims):
                raise ShapeError(f"{spec.name}.ndim={len(shape)}, but should be {len(spec.dims)} ({' '.join(spec.dims)}) {context}")
            for axis, (dim, size) in enumerate(zip(spec.dims, shape, strict=True)):
                if dim in spec.loose and size == 1:
                    continue
                if sizes.setdefault(dim, size) != size:
                    raise ShapeError(f"{spec.name}.shape[{axis}]={size}, but should be {dim}={sizes[dim]} as in {owners[dim]} {context}")
                owners.setdefault(dim, spec.name)
        _derived(derive, sizes, owners, context)
        return sizes

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"


def _derived(
    derive: Callable[[dict[str, int]], dict[str, int]], sizes: dict[str, int], owners: Mapping[str, str], context: str
) -> dict[str, int]:
    """Add the dimensions that follow from others to the sizes."""
    derived = derive(sizes)
    for dim, size in derived.items():
        if sizes.setdefault(dim, size) != size:
            raise ShapeError(f"{owners[dim]} has {dim}={sizes[dim]}, but should have {dim}={size} {context}")
    return derived


def _check_broadcast(spec: ArraySpec, shape: tuple[int, ...], sizes: Mapping[str, int], context: str) -> None:
    target = tuple(sizes[dim] for dim in spec.dims)
    fits = len(shape) <= len(target) and all(size in (1, wanted) for size, wanted in zip(shape[::-1], target[::-1], strict=False))
    if not fits:
        raise ShapeError(f"{spec.name}.shape={_show(shape)}, but should broadcast to ({' '.join(spec.dims)}) = {_show(target)} {context}")


def _show(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _parse_array(text: str, position: int) -> ArraySpec:
    match = _ARRAY.match(text.strip())
    if match is None:
        raise ValueError(f"signature part {text.strip()!r}, but should look like 'name?: kind dims' or 'name: ~(dims)'")
    shape = match["shape"]
    return ArraySpec(
        name=match["name"] or ("out" if position == 0 else f"out{position}"),
        dims=tuple(word.removesuffix("|1") for word in shape.strip("~()").split()),
        kind=match["kind"] or "float",
        optional=bool(match["optional"]),
        broadcast=shape.startswith("~"),
        loose=tuple(word.removesuffix("|1") for word in shape.split() if word.endswith("|1")),
    )


def parse_signature(text: str, derived: Collection[str] = ()) -> Signature:
    """Parse the one-line form.

    Args:
        text: such as in the module's docstring.
        derived: dimensions that follow from others, which an input may therefore broadcast to and an output have.

    Raises:
        ValueError: the text is not a signature; the message shows the offending part.
    """
    if text.count("->") != 1:
        raise ValueError(f"signature {text!r}, but should have exactly one '->'")
    inputs, outputs = (
        tuple(_parse_array(part, position) for position, part in enumerate(side.split(",")) if part.strip()) for side in text.split("->")
    )
    known = {dim for spec in inputs if not spec.broadcast for dim in spec.dims} | set(derived)
    for spec in inputs:
        unbound = [dim for dim in spec.dims if dim not in known]
        if unbound:
            raise ValueError(f"input {spec.name} broadcasts to {unbound[0]!r}, but some other input should have that dimension")
    for spec in outputs:
        unknown = [dim for dim in spec.dims if dim not in known]
        if unknown:
            raise ValueError(
                f"output {spec.name} has dimension {unknown[0]!r}, but should only use those of the inputs ({' '.join(sorted(known))})"
            )
    return Signature(inputs, outputs)
