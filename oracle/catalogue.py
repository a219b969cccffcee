"""The catalogue: what a method is, and the table of all of them.

A `Method` joins a specification (plain NumPy) with what the rest of attest must know to generate cases for it, check
arguments and document it. Specifications register themselves with `@method` where they are defined.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from oracle.conditions import holds
from oracle.signature import ShapeError, Signature, parse_signature

__all__ = ["METHODS", "Method", "OptionError", "get_method", "method"]


class OptionError(ValueError):
    """An option is unknown or has a value that the method does not allow."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _is_window(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(side is None or (isinstance(side, (int, np.integer)) and not isinstance(side, bool) and side >= 0) for side in value)
    )


# kind of option -> what it should be, in words, and the check
OPTION_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "flag": ("True or False", lambda value: isinstance(value, (bool, np.bool_))),
    "window": ("a pair (left, right) of integers >= 0 or None", _is_window),
    "positive": ("a number > 0", lambda value: _is_number(value) and math.isfinite(value) and value > 0),
    "real": ("a finite number", lambda value: _is_number(value) and math.isfinite(value)),
}


@dataclass(frozen=True)
class Method:
    """One attention method with one exact meaning. Calling it evaluates the specification in float64.

    Attributes:
        name: as in METHODS and on the command line.
        spec: the specification: arrays positionally, options and conventions by keyword.
        signature: shapes of its arrays.
        where: conditions that the dimensions must satisfy, each with the words of its error.
        options: kind of every option that is not an array, by name; see `OPTION_KINDS`.
        conventions: documented meanings that good implementations differ in: name -> values, the default first.
        tunables: names of the keywords that may change speed, never meaning.
        source: the paper, with its equation.
        unread: from the arguments by name to, for some arrays, a bool array of the elements that the method promises not
            to read; None where it promises nothing.
    """

    name: str
    spec: Callable[..., Any]
    signature: Signature
    where: Mapping[str, str]
    options: Mapping[str, str]
    conventions: Mapping[str, tuple[str, ...]]
    tunables: tuple[str, ...]
    source: str
    unread: Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]] | None = None

    @property
    def summary(self) -> str:
        """First line of the specification's docstring."""
        return (inspect.getdoc(self.spec) or "").split("\n", 1)[0]

    @cached_property
    def keywords(self) -> tuple[str, ...]:
        """Every keyword option, arrays included, in the order of the specification."""
        arrays = {spec.name for spec in self.signature.optional}
        return tuple(name for name in inspect.signature(self.spec).parameters if name in arrays or name in self.options)

    @property
    def names(self) -> set[str]:
        """Every name that a condition may use."""
        return {*self.signature.dims, *self.keywords}

    def default(self, option: str) -> Any:
        """Default of an option."""
        return inspect.signature(self.spec).parameters[option].default

    def check(self, arguments: Mapping[str, Any]) -> dict[str, int]:
        """Validate arrays and options by name.

        Returns:
            The size of every dimension.

        Raises:
            ShapeError: an array is missing or does not fit.
            OptionError: an option is unknown or out of range.
        """
        known = {spec.name for spec in self.signature.inputs} | set(self.options) | set(self.conventions)
        for name in arguments:
            if name not in known:
                raise OptionError(f"{name} is not an argument of {self.name}, but should be one of {', '.join(sorted(known))}")
        shapes = {spec.name: np.shape(arguments[spec.name]) for spec in self.signature.inputs if arguments.get(spec.name) is not None}
        sizes = self.signature.bind(shapes, self.name)
        for spec in self.signature.inputs:
            if spec.kind == "bool" and spec.name in shapes and (dtype := np.asarray(arguments[spec.name]).dtype).kind != "b":
                raise OptionError(f"{spec.name}.dtype={dtype}, but should be bool (True may attend) [{self.name}]")
        for condition, words in self.where.items():
            if 0 in (sizes[dim] for dim in ("g",) if dim in sizes) or not holds(condition, sizes):
                given = ", ".join(f"{dim}={size}" for dim, size in sizes.items())
                raise ShapeError(f"{given}, but should satisfy {condition}: {words} [{self.name}]")
        for name, kind in self.options.items():
            value = arguments.get(name)
            expected, valid = OPTION_KINDS[kind]
            if value is not None and not valid(value):
                raise OptionError(f"{name}={value!r}, but should be {expected} [{self.name}]")
        for name, allowed in self.conventions.items():
            if arguments.get(name, allowed[0]) not in allowed:
                raise OptionError(f"{name}={arguments[name]!r}, but should be one of {', '.join(allowed)} [{self.name}]")
        return sizes

    def __call__(self, *arrays: Any, **keywords: Any) -> Any:
        """Evaluate the specification in float64; see its docstring for shapes and options."""
        names = [spec.name for spec in self.signature.required]
        if len(arrays) > len(names):
            raise OptionError(f"{self.name} got {len(arrays)} positional arguments, but should get {len(names)}: {', '.join(names)}")
        arguments = dict(zip(names, arrays, strict=False))
        for name in arguments:
            if name in keywords:
                raise OptionError(f"{name} is given twice, but should be given by position or by keyword [{self.name}]")
        arguments |= keywords
        self.check(arguments)
        for spec in self.signature.inputs:
            if arguments.get(spec.name) is not None:
                arguments[spec.name] = np.asarray(arguments[spec.name], dtype=bool if spec.kind == "bool" else np.float64)
        return self.spec(**arguments)


METHODS: dict[str, Method] = {}


def method(
    *,
    source: str,
    shapes: str,
    where: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    conventions: Mapping[str, tuple[str, ...]] | None = None,
    tunables: tuple[str, ...] = (),
    unread: Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]] | None = None,
) -> Callable[[Callable[..., Any]], Method]:
    """Declare the decorated function as the specification of the method of its name; see `Method` for the arguments."""

    def declare(spec: Callable[..., Any]) -> Method:
        name = spec.__name__
        if name in METHODS and METHODS[name].spec.__module__ != spec.__module__:
            raise ValueError(f"method {name!r} is declared twice, in {METHODS[name].spec.__module__} and {spec.__module__}")
        made = Method(name, spec, parse_signature(shapes), where or {}, options or {}, conventions or {}, tunables, source, unread)
        unknown = set(made.options) | set(made.conventions) | {array.name for array in made.signature.inputs}
        unknown -= set(inspect.signature(spec).parameters)
        if unknown:
            raise ValueError(f"method {name!r} declares {sorted(unknown)[0]!r}, but its specification has no such parameter")
        METHODS[name] = made
        return made

    return declare


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        KeyError: there is none; the message lists those that there are.
    """
    if name not in METHODS:
        raise KeyError(f"method={name!r}, but should be one of {', '.join(METHODS)}")
    return METHODS[name]
