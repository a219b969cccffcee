"""The catalogue: what a method is, and the table of all of them.

A `Method` joins a specification (plain NumPy) with what the rest of attest must know to generate cases for it, check
arguments and document it. Specifications register themselves with `@method` where they are defined.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from oracle.conditions import evaluate, holds
from oracle.domains import check_domain
from oracle.options import Kind, OptionError, allows, in_words, why_not
from oracle.signature import ArraySpec, ShapeError, Signature, parse_signature

__all__ = ["METHODS", "PLAIN_DTYPES", "Method", "OptionError", "get_method", "method"]

# How a dimension follows from others and from options: an expression, or a function of the options by name.
Derivation = str | Callable[[Mapping[str, Any]], int]


@dataclass(frozen=True)
class Method:
    """One attention method with one exact meaning. Calling it evaluates the specification in float64.

    Attributes:
        name: as in METHODS and on the command line.
        spec: the specification: arrays positionally, options and conventions by keyword.
        signature: shapes of its arrays.
        where: conditions that the dimensions must satisfy, each with the words of its error.
        options: kind of every option that is not an array, by name; see `oracle.options`.
        conventions: documented meanings that good implementations differ in: name -> values, the default first.
        tunables: names of the keywords that may change speed, never meaning.
        source: the paper, with its equation.
        unread: from the arguments by name to, for some arrays, a bool array of the elements that the method promises not
            to read; None where it promises nothing. They may hold any finite number.
        foreign: the same of elements that may even hold NaN and must not leak, since they belong to no sequence of the call or to
            another one: the rest of a page, pages of others. Part of what is unread; None where there are none.
        hiding: names of the arrays that `unread` speaks of, that of the keys first.
        visible: from the arguments by name and the sizes by letter to which keys a query reads, broadcastable to (B, Hq, Lq, Lk);
            None for methods that do not choose keys.
        derived: dimensions that follow from others and from options: letter -> expression, as in `oracle.conditions`, or a
            function of the options by name.
        domains: which values the elements of an array may have, by name; see `oracle.domains`.
        refusable: conditions on the dimensions without which a good implementation may refuse to work, each with the words for
            what it lacks then: ``{"h == g": "grouped heads"}``.
        decisions: dimensions of the rows in which a discrete decision is made, each by itself; () for methods without one. See
            `oracle.readings.decisions`.
        cost: expression for about how many numbers its evaluation holds or how much work that many are; what sizes cases.
        coding: from the options to the formats of its arrays of kind ``code``, by name; see `oracle.codes`. None where it has none.
        approximation: of a method that is meant to be near another, from the arguments in float64 to the name of that, what this
            method makes of them, and what the other does; None for a method that approximates nothing.
        contracting: whether its recurrence forgets errors, which the running bound cannot see: the budget may then be the
            perturbed reading's; see `oracle.readings.perturbed`.
        subject: what implements it: ``function``, or ``cache`` for a class that keeps keys and values; see docs/caches.md.
        in_words: from the options by name and the index of an element of an output to what that element is; None where the
            index says it.
        sharded: the dimensions whose positions are spread over processes where an implementation is called on each of several with
            what it holds; () for methods that are not computed so. See `oracle.parallel.token_shares`.
    """

    name: str
    spec: Callable[..., Any]
    signature: Signature
    where: Mapping[str, str]
    options: Mapping[str, Kind]
    conventions: Mapping[str, tuple[str, ...]]
    tunables: tuple[str, ...]
    source: str
    unread: Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]] | None = None
    visible: Callable[[Mapping[str, Any], Mapping[str, int]], np.ndarray] | None = None
    derived: Mapping[str, Derivation] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    refusable: Mapping[str, str] = field(default_factory=dict)
    cost: str = "1"
    decisions: tuple[str, ...] = ()
    contracting: bool = False
    foreign: Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]] | None = None
    hiding: tuple[str, ...] = ("k", "v")
    subject: str = "function"
    in_words: Callable[[Mapping[str, Any], tuple[int, ...]], str] | None = None
    coding: Callable[[Mapping[str, Any]], Mapping[str, str]] | None = None
    approximation: Callable[[Mapping[str, Any]], tuple[str, np.ndarray, np.ndarray]] | None = None
    sharded: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """First line of the specification's docstring."""
        return (inspect.getdoc(self.spec) or "").split("\n", 1)[0]

    @cached_property
    def positional(self) -> tuple[ArraySpec, ...]:
        """The arrays that are passed by position."""
        parameters = inspect.signature(self.spec).parameters
        return tuple(spec for spec in self.signature.required if parameters[spec.name].kind is not inspect.Parameter.KEYWORD_ONLY)

    @cached_property
    def positional_names(self) -> list[str]:
        """Arguments that a call of the specification may give by position: these arrays, and options that stand among them."""
        parameters = inspect.signature(self.spec).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]

    @cached_property
    def keywords(self) -> tuple[str, ...]:
        """Every keyword option, arrays included, in the order of the specification."""
        arrays = {spec.name for spec in self.signature.inputs} - {spec.name for spec in self.positional}
        return tuple(name for name in inspect.signature(self.spec).parameters if name in arrays or name in self.options)

    @cached_property
    def required_keywords(self) -> tuple[str, ...]:
        """The keyword options, arrays included, that every call gives."""
        return tuple(name for name in self.keywords if self.default(name) is inspect.Parameter.empty)

    @property
    def names(self) -> set[str]:
        """Every name that a condition may use."""
        return {*self.signature.dims, *self.keywords}

    @cached_property
    def _defaults(self) -> Mapping[str, Any]:
        return {name: parameter.default for name, parameter in inspect.signature(self.spec).parameters.items()}

    def default(self, option: str) -> Any:
        """Default of an option."""
        return self._defaults[option]

    @cached_property
    def _defaults_of_options(self) -> Mapping[str, Any]:
        return {name: self._defaults[name] for name in self.options if name not in self.required_keywords}

    def given(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a call, with their defaults where it leaves them out."""
        return {**self._defaults_of_options, **{name: value for name, value in options.items() if value is not None}}

    def check(self, arguments: Mapping[str, Any]) -> dict[str, int]:
        """Validate arrays and options by name.

        Returns:
            The size of every dimension.

        Raises:
            ShapeError: an array is missing or does not fit.
            OptionError: an option is missing, unknown or out of range, or an element of an array is.
        """
        known = {spec.name for spec in self.signature.inputs} | set(self.options) | set(self.conventions)
        for name in arguments:
            if name not in known:
                raise OptionError(f"{name} is not an argument of {self.name}, but should be one of {', '.join(sorted(known))}")
        self._check_options(arguments)
        shapes = {spec.name: np.shape(arguments[spec.name]) for spec in self.signature.inputs if arguments.get(spec.name) is not None}
        sizes = self.signature.bind(shapes, self.name, lambda sizes: self.derive(sizes, arguments))
        self._check_elements(arguments, sizes)
        for condition, words in self.where.items():
            if 0 in (sizes[dim] for dim in ("g",) if dim in sizes) or not holds(condition, {**self.given(arguments), **sizes}):
                given = ", ".join(f"{dim}={size}" for dim, size in sizes.items())
                raise ShapeError(f"{given}, but should satisfy {condition}: {words} [{self.name}]")
        for name, kind in self.options.items():
            length = sizes.get("s", sizes.get("l", 0))
            if kind == "positions" and (beyond := [one for one in arguments.get(name) or () if one >= length]):
                raise OptionError(f"{name} has {beyond[0]}, but should have only positions below the length {length} [{self.name}]")
        return sizes

    def sizes(self, arguments: Mapping[str, Any]) -> dict[str, int]:
        """The size of every dimension that an array of a call has, not validated."""
        given = [spec for spec in self.signature.inputs if not (spec.broadcast or spec.loose) and arguments.get(spec.name) is not None]
        return {dim: size for spec in given for dim, size in zip(spec.dims, np.shape(arguments[spec.name]), strict=True)}

    def related(self, name: str) -> tuple[str, ...]:
        """The arrays by which the elements of an array have to go, as its domain says."""
        arrays = {spec.name for spec in self.signature.inputs}
        return tuple(word for word in self.domains.get(name, "").split()[1:] if word in arrays)

    def derive(self, sizes: Mapping[str, int], options: Mapping[str, Any]) -> dict[str, int]:
        """The sizes of the dimensions that follow from others and from options."""
        given = self.given(options)
        return {dim: rule(options) if callable(rule) else int(evaluate(rule, {**given, **sizes})) for dim, rule in self.derived.items()}

    def _check_options(self, arguments: Mapping[str, Any]) -> None:
        for name, kind in self.options.items():
            value = arguments.get(name)
            if value is None and name in self.required_keywords:
                raise OptionError(f"{name} is missing, but should be {in_words(kind)} [{self.name}]")
            if value is not None and not allows(kind, value):
                raise OptionError(f"{name}={value!r}, but should be {in_words(kind)}{why_not(kind, value)} [{self.name}]")
        for name, allowed in self.conventions.items():
            if arguments.get(name, allowed[0]) not in allowed:
                raise OptionError(f"{name}={arguments[name]!r}, but should be one of {', '.join(allowed)} [{self.name}]")

    def _check_elements(self, arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        for spec in self.signature.inputs:
            if arguments.get(spec.name) is None:
                continue
            values = np.asarray(arguments[spec.name])
            if spec.kind == "bool" and values.dtype.kind != "b":
                raise OptionError(f"{spec.name}.dtype={values.dtype}, but should be bool [{self.name}]")
            if spec.kind == "int" and values.dtype.kind not in "iu":
                raise OptionError(f"{spec.name}.dtype={values.dtype}, but should be an integer dtype [{self.name}]")
        # An array by which others go is checked before them.
        for name in sorted(self.domains, key=lambda name: len(self.related(name))):
            if arguments.get(name) is not None:
                check_domain(name, np.asarray(arguments[name]), self.domains[name], sizes, self.name, arguments)

    def __call__(self, *arrays: Any, **keywords: Any) -> Any:
        """Evaluate the specification in float64; see its docstring for shapes and options."""
        names = self.positional_names
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
                arguments[spec.name] = np.asarray(arguments[spec.name], dtype=PLAIN_DTYPES.get(spec.kind, np.float64))
        return self.spec(**arguments)


# The dtypes of elements that no reading lifts.
PLAIN_DTYPES: dict[str, Any] = {"bool": bool, "int": np.int64}

METHODS: dict[str, Method] = {}


def method(
    *,
    source: str,
    shapes: str,
    where: Mapping[str, str] | None = None,
    options: Mapping[str, Kind] | None = None,
    conventions: Mapping[str, tuple[str, ...]] | None = None,
    tunables: tuple[str, ...] = (),
    unread: Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]] | None = None,
    visible: Callable[[Mapping[str, Any], Mapping[str, int]], np.ndarray] | None = None,
    derived: Mapping[str, Derivation] | None = None,
    domains: Mapping[str, str] | None = None,
    refusable: Mapping[str, str] | None = None,
    cost: str | None = None,
    decisions: str = "",
    contracting: bool = False,
    foreign: Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]] | None = None,
    hiding: tuple[str, ...] = ("k", "v"),
    subject: str = "function",
    in_words: Callable[[Mapping[str, Any], tuple[int, ...]], str] | None = None,
    coding: Callable[[Mapping[str, Any]], Mapping[str, str]] | None = None,
    approximation: Callable[[Mapping[str, Any]], tuple[str, np.ndarray, np.ndarray]] | None = None,
    sharded: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Method]:
    """Declare the decorated function as the specification of the method of its name; see `Method` for the arguments."""

    def declare(spec: Callable[..., Any]) -> Method:
        name = spec.__name__
        if name in METHODS and METHODS[name].spec.__module__ != spec.__module__:
            raise ValueError(f"method {name!r} is declared twice, in {METHODS[name].spec.__module__} and {spec.__module__}")
        signature = parse_signature(shapes, derived or ())
        size = cost or " * ".join(letter for letter in "nbhls" if letter in signature.dims) or "1"
        made = Method(
            name=name, spec=spec, signature=signature, where=where or {}, options=options or {}, conventions=conventions or {},
            tunables=tunables, source=source, unread=unread, visible=visible, derived=derived or {}, domains=domains or {},
            refusable=refusable or {}, cost=size, decisions=tuple(decisions.split()), contracting=contracting, foreign=foreign,
            hiding=hiding, subject=subject, in_words=in_words, coding=coding, approximation=approximation, sharded=sharded,
        )  # fmt: skip
        unknown = set(made.options) | set(made.conventions) | {array.name for array in made.signature.inputs} | set(made.domains)
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
