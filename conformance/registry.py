"""Implementations: how they describe themselves, and the decorator that registers them.

An `Implementation` is plain data. The function itself stays in the worker process that loaded it, away from the oracle
and the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from conformance.cases.case import condition_names
from conformance.errors import UsageError
from conformance.isolation.backends import BACKENDS, backend_named
from conformance.parallel.driver import WORLD_SIZES, RankDriver, is_per_rank
from conformance.parameters import taken, unset_in_words
from conformance.serving.driver import CacheDriver
from oracle import get_method
from oracle.catalogue import Method
from oracle.conditions import ConditionError, check_condition, holds
from oracle.formats import FORMATS
from oracle.readings.contract import CONTRACTS, PrecisionContract, contract_for

__all__ = [
    "CALLING_CONVENTIONS",
    "Implementation",
    "Registration",
    "Tunable",
    "block_sizes",
    "conventions_of",
    "describe",
    "register",
    "registered",
    "split_counts",
    "usual_tunables",
    "world_sizes",
    "zigzag_orders",
]

# Conventions of how arguments are passed rather than of what they mean; every method with such an argument has them.
CALLING_CONVENTIONS = {"mask_polarity": ("allow", "block"), "mask_type": ("bool", "additive")}

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Tunable:
    """Which values a tunable takes.

    Attributes:
        kind: ``block`` (any size >= 1, aimed at the lengths), ``count`` (any number >= 1) or ``choice``.
        choices: the values, for ``choice``.
    """

    kind: str
    choices: tuple[int, ...] = ()


block_sizes = Tunable("block")
split_counts = Tunable("count")
world_sizes = Tunable("choice", WORLD_SIZES)
zigzag_orders = Tunable("choice", (0, 1))

# The tunables of methods that are no sizes of blocks.
_OTHER_TUNABLES = {"num_splits": split_counts, "world_size": world_sizes, "zigzag": zigzag_orders}


def usual_tunables(names: Iterable[str]) -> dict[str, Tunable]:
    """What tunables that methods know by name usually are."""
    return {name: _OTHER_TUNABLES.get(name, block_sizes) for name in names}


@dataclass(frozen=True)
class Implementation:
    """What is known of an implementation without running it.

    Attributes:
        name: as shown in reports.
        method: name of the method that it claims to implement.
        backend: whose arrays it takes.
        target: how a worker loads it: ``package.module:function`` or ``path/file.py:function``.
        dtypes: storage dtypes that it is certified for by default.
        contract: precision contract, or None for the one named like the dtype.
        options: keyword options of the method that it takes.
        any_keyword: whether it has ``**kwargs``, which may take more options than it names or declares.
        explicit: options that every call passes, also where a case does not set them, with the reason.
        tunables: keywords that must not change the meaning.
        conventions: declared meanings where they differ from the default.
        restrictions: condition -> reason; calls outside are not made, and the certificate says so.
        layout: order of the axes of its arrays, such as "b l h d"; None for the method's own.
        description: one line.
        remarks: sentences on what is not judged because of what it is.
        optional: whether it stands behind an extra of the package that registers it, so that only who names it means it.
        devices: kinds of devices that it runs on, where these are not all of its backend.
    """

    name: str
    method: str
    backend: str
    target: str
    dtypes: tuple[str, ...] = ("float32",)
    contract: str | None = None
    options: tuple[str, ...] = ()
    any_keyword: bool = False
    explicit: Mapping[str, str] = field(default_factory=dict)
    tunables: Mapping[str, Tunable] = field(default_factory=dict)
    conventions: Mapping[str, str] = field(default_factory=dict)
    restrictions: Mapping[str, str] = field(default_factory=dict)
    layout: str | None = None
    description: str = ""
    remarks: tuple[str, ...] = ()
    optional: bool = False
    devices: tuple[str, ...] = ()

    @property
    def strided(self) -> bool:
        """Whether its arrays may lie in memory in any order and with gaps."""
        return BACKENDS[self.backend].strided

    def runs_on(self, device: str) -> bool:
        """Whether it runs on a device such as ``cuda:1``."""
        return device.partition(":")[0] in (self.devices or BACKENDS[self.backend].devices)

    def precision(self, dtype: str) -> PrecisionContract:
        """The contract under which it is judged for a dtype."""
        declared = CONTRACTS.get(self.contract or dtype)
        return declared if declared is not None and declared.output.name == dtype else contract_for(dtype, dtype)

    @property
    def meaning(self) -> dict[str, str]:
        """Declared conventions that change the specification (not merely how it is called)."""
        return {name: value for name, value in self.conventions.items() if name not in CALLING_CONVENTIONS}

    def admits(self, facts: Mapping[str, Any]) -> bool:
        """Whether its restrictions allow a call with these dimensions and options (`Case.facts`)."""
        return all(holds(condition, facts) for condition in self.restrictions)

    def tunes(self, values: Mapping[str, int]) -> bool:
        """Whether its tunables take these values."""
        limited = {name: tunable.choices for name, tunable in self.tunables.items() if tunable.kind == "choice"}
        return all(values[name] in choices for name, choices in limited.items() if name in values)

    @property
    def notes(self) -> list[str]:
        """Sentences on how its options are passed, where its signature leaves that open."""
        method = _method(self.method)
        notes = [f"{unset_in_words(option, method)} is passed where a case does not set it: {why}" for option, why in self.explicit.items()]
        hidden = [option for option in method.keywords if option not in self.options]
        if self.any_keyword and hidden:
            judged = f"with {', '.join(self.options)} and " if self.options else ""
            notes.append(f"takes **kwargs: judged {judged}without {', '.join(hidden)}; declare what it supports with --option NAME")
        if not self.strided:
            array = BACKENDS[self.backend].array
            notes.append(f"memory layouts are not varied: a {array} has no strides, and nothing can write to it")
        return [*notes, *self.remarks]

    def to_json(self) -> dict[str, Any]:
        """Plain data that crosses process boundaries."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Implementation:
        """Undo `to_json`."""
        tunables = {name: Tunable(tunable["kind"], tuple(tunable["choices"])) for name, tunable in data["tunables"].items()}
        listed = {name: tuple(data[name]) for name in ("dtypes", "options", "remarks", "devices")}
        return cls(**{**data, **listed, "tunables": tunables})

    def declaring(
        self, *, options: Iterable[str] = (), conventions: Mapping[str, str] | None = None,
        restrictions: Mapping[str, str] | None = None, layout: str | None = None, contract: str | None = None,
    ) -> Implementation:  # fmt: skip
        """A copy with more declarations, validated."""
        changed = replace(
            self,
            options=self._with_options(set(options)),
            conventions={**self.conventions, **(conventions or {})},
            restrictions={**self.restrictions, **(restrictions or {})},
            layout=layout or self.layout,
            contract=contract or self.contract,
        )
        _check(changed)
        return changed

    def _with_options(self, declared: set[str]) -> tuple[str, ...]:
        keywords = _method(self.method).keywords
        for option in sorted(declared - set(self.options)):
            if option not in keywords:
                raise UsageError(f"option={option!r}, but should be one of {', '.join(keywords) or 'none'} [{self.method}]")
            if not self.any_keyword:
                raise UsageError(
                    f"option={option!r}, but should be a keyword of {self.name}, which takes {', '.join(self.options) or 'none'} "
                    "and no **kwargs"
                )
        return tuple(option for option in keywords if option in declared or option in self.options)


@dataclass(frozen=True)
class Registration:
    """An implementation with its function, in the process that loaded it."""

    implementation: Implementation
    function: Callable[..., Any]

    @property
    def callable(self) -> Callable[..., Any]:
        """What a call of the method calls: the function, or what drives a class of caches."""
        implementation = self.implementation
        method = _method(implementation.method)
        return _as_function(self.function, implementation.name, method, set(implementation.tunables), implementation.layout)


_REGISTRY: dict[str, Registration] = {}


def registered() -> dict[str, Registration]:
    """Everything registered in this process so far, by name."""
    return dict(_REGISTRY)


def register(
    method: str,
    *,
    backend: str,
    name: str | None = None,
    dtypes: tuple[str, ...] = ("float32",),
    contract: str | None = None,
    options: tuple[str, ...] = (),
    tunables: Mapping[str, Tunable | tuple[int, ...]] | None = None,
    conventions: Mapping[str, str] | None = None,
    restrictions: Mapping[str, str] | None = None,
    layout: str | None = None,
    devices: tuple[str, ...] = (),
    description: str = "",
) -> Callable[[Function], Function]:
    """Register the decorated function as an implementation of a method.

    Its keyword parameters tell which options it supports; see `conformance.parameters.taken` for what a call passes where
    its defaults are not the method's. The function itself is returned unchanged.

    Args:
        method: name of the method, as in ``attest list``.
        backend: ``numpy``, ``torch`` or ``jax``: whose arrays it takes and returns.
        name: unique; the module and the function's name by default.
        dtypes: storage dtypes to certify by default.
        contract: precision contract; by default the one named like the dtype.
        options: those that it supports besides the ones that it names, if it takes ``**kwargs``.
        tunables: keyword -> `block_sizes`, `split_counts` or a tuple of values.
        conventions: declared meanings, such as ``{"causal_alignment": "top-left"}``.
        restrictions: condition -> reason, such as ``{"s > 0": "empty keys raise"}``; ``attest explain`` lists the names.
        layout: order of the axes of its arrays, such as ``"b l h d"``.
        devices: kinds of devices that it runs on, such as ``("cuda",)``; by default every one of the backend. It is left out elsewhere.
        description: one line for ``attest list``.

    Raises:
        UsageError: a declaration does not fit the method or the function.
    """

    def declare(function: Function) -> Function:
        if not hasattr(function, "__qualname__"):
            raise UsageError(f"register got {type(function).__name__}, but should get a function, by whose name it can be loaded again")
        target = f"{function.__module__}:{function.__qualname__}"
        implementation = describe(
            function, method=method, backend=backend, name=name or target.replace(":", "."), target=target, tunables=tunables,
        )  # fmt: skip
        implementation = replace(
            implementation, dtypes=tuple(dtypes), devices=tuple(devices) or implementation.devices, description=description
        )
        implementation = implementation.declaring(
            options=options, conventions=conventions, restrictions=restrictions, layout=layout, contract=contract
        )
        known = _REGISTRY.get(implementation.name)
        if known is not None and known.implementation.target != target:
            raise UsageError(f"name={implementation.name!r} is registered twice, by {known.implementation.target} and {target}")
        _REGISTRY[implementation.name] = Registration(implementation, function)
        return function

    return declare


def describe(
    function: Callable[..., Any],
    *,
    method: str,
    backend: str,
    name: str,
    target: str,
    tunables: Mapping[str, Tunable | tuple[int, ...]] | None = None,
) -> Implementation:
    """Read off a function's signature what it takes; see `conformance.parameters.taken`.

    Raises:
        UsageError: it is not callable, or its parameters do not fit the method.
    """
    declared = None if tunables is None else set(tunables)
    called = _as_function(function, name, _method(method), declared)
    if isinstance(called, RankDriver):
        if backend != "torch":
            raise UsageError(f"{name} is called on each of several processes, which takes the backend torch, but its backend is {backend}")
        tunables = None if tunables is None else {"world_size": world_sizes, **tunables}
    found = taken(called, name, _method(method), None if tunables is None else set(tunables))
    if tunables is None:
        # Without a registration, keywords that the method knows as tunables are drawn by the fuzzer.
        tunables = usual_tunables(found.tunables)
    return Implementation(
        name=name,
        method=method,
        backend=backend,
        target=target,
        options=found.options,
        any_keyword=found.any_keyword,
        explicit=found.explicit,
        tunables={key: value if isinstance(value, Tunable) else Tunable("choice", tuple(value)) for key, value in tunables.items()},
        restrictions={**found.restrictions, **(called.restrictions if isinstance(called, CacheDriver) else {})},
        remarks=called.remarks if isinstance(called, (CacheDriver, RankDriver)) else (),
        devices=called.devices if isinstance(called, RankDriver) else (),
    )


def _as_function(
    function: Callable[..., Any], name: str, method: Method, tunables: set[str] | None, layout: str | None = None
) -> Callable[..., Any]:
    """What implements a method as a function of its arguments."""
    if method.subject == "cache":
        return CacheDriver(function, name, method, tunables)
    return RankDriver(function, name, method, layout) if is_per_rank(function, name, method) else function


def _method(name: str) -> Method:
    try:
        return get_method(name)
    except KeyError as error:
        raise UsageError(error.args[0]) from None


def _check(implementation: Implementation) -> None:
    method = _method(implementation.method)
    known = backend_named(implementation.backend).devices
    for device in implementation.devices:
        if device not in known:
            raise UsageError(f"device={device!r}, but should be one of {', '.join(known)} for the backend {implementation.backend}")
    for dtype in implementation.dtypes:
        if dtype not in FORMATS:
            raise UsageError(f"dtype={dtype!r}, but should be one of {', '.join(FORMATS)}")
    conventions = conventions_of(method)
    for name, value in implementation.conventions.items():
        if name not in conventions:
            raise UsageError(f"convention={name!r}, but should be one of {', '.join(conventions)} [{method.name}]")
        if value not in conventions[name]:
            raise UsageError(f"{name}={value!r}, but should be one of {', '.join(conventions[name])} [{method.name}]")
    for condition in implementation.restrictions:
        try:
            check_condition(condition, set(condition_names(method)))
        except ConditionError as error:
            raise UsageError(str(error)) from None
    if implementation.layout is not None:
        wanted = method.signature.required[0].dims if method.signature.required else ()
        if sorted(implementation.layout.split()) != sorted(wanted):
            raise UsageError(f"layout={implementation.layout!r}, but should be an order of the axes {' '.join(wanted)!r}")
    if implementation.contract is not None and implementation.contract not in CONTRACTS:
        raise UsageError(f"contract={implementation.contract!r}, but should be one of {', '.join(CONTRACTS)}")


def conventions_of(method: Method) -> dict[str, tuple[str, ...]]:
    """Every convention that an implementation of the method may declare, the default first."""
    calling = CALLING_CONVENTIONS if any(spec.name == "mask" for spec in method.signature.inputs) else {}
    return {**method.conventions, **calling}
