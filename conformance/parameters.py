"""What a function takes: its parameters, read off its signature and held against the arguments of a method.

Arrays that a method requires are passed by position, whatever the function calls them; options by keyword, under the
method's names.
"""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conformance.errors import UsageError
from oracle.catalogue import Method
from oracle.options import allows

__all__ = ["Taken", "fits_by_name", "parameters_of", "taken", "unset", "unset_in_words"]

# Options whose default None stands for a value, with that value in words and from the dimensions of a call: a function
# that is told the value need not know what None means.
STAND_INS: dict[str, tuple[str, Callable[[Mapping[str, int]], Any]]] = {
    "scale": ("1/sqrt(d)", lambda dims: max(dims["d"], 1) ** -0.5),
    "window": ("(None, None)", lambda dims: (None, None)),
}


@dataclass(frozen=True)
class Taken:
    """Which arguments of a method a function takes.

    Attributes:
        options: keywords of the method that it names.
        any_keyword: whether it takes ``**kwargs``, which may hide more of them.
        tunables: those of its parameters that were declared as such, or that the method knows and no `functools.partial` binds.
        explicit: options that every call passes, with the reason; see `taken`.
        restrictions: conditions that follow from its defaults, with the reason; see `taken`.
    """

    options: tuple[str, ...]
    any_keyword: bool = False
    tunables: tuple[str, ...] = ()
    explicit: Mapping[str, str] = field(default_factory=dict)
    restrictions: Mapping[str, str] = field(default_factory=dict)


def unset(option: str, method: Method, dims: Mapping[str, int]) -> Any:
    """What a call passes for an option of `Taken.explicit` that its case does not set."""
    default = method.default(option)
    return STAND_INS[option][1](dims) if default is None and option in STAND_INS else default


def unset_in_words(option: str, method: Method) -> str:
    """The same as it stands in a call, such as ``scale=1/sqrt(d)``."""
    default = method.default(option)
    return f"{option}={STAND_INS[option][0] if default is None and option in STAND_INS else default}"


def parameters_of(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """The parameters of a function, of what a decorator wraps, or of an object's ``forward`` where its call says nothing.

    Raises:
        UsageError: it is no function, or its signature cannot be read.
    """
    if inspect.isclass(function):
        raise UsageError(
            f"{name} is a class, but should be a function or an instance: put 'kernel = {function.__name__}(...)' into the file "
            "and name that"
        )
    if not callable(function):
        raise UsageError(f"{name} is {type(function).__name__}, but should be a function")
    try:
        return list(inspect.signature(_telling(function)).parameters.values())
    except (TypeError, ValueError):
        raise UsageError(f"{name} has no readable signature, but should be a Python function: wrap it in one") from None


def _telling(function: Callable[..., Any]) -> Callable[..., Any]:
    """The callable whose signature tells what a function takes: `torch.nn.Module` passes anything on to ``forward``."""
    if isinstance(function, functools.partial):
        return functools.partial(_telling(function.func), *function.args, **function.keywords)
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    says_nothing = kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return function.forward if says_nothing and hasattr(type(function), "forward") else function  # type: ignore[attr-defined]


def fits_by_name(parameters: Sequence[inspect.Parameter], method: Method) -> bool:
    """Whether the first parameters are named like the arrays of a method: ``q`` or ``query`` for q, and so on."""
    if not method.positional:  # of numbers alone: nothing but all of their names tells it
        return set(method.required_keywords) <= {parameter.name for parameter in parameters}
    return _roles(parameters, method) == list(range(len(method.positional)))


def _roles(parameters: Sequence[inspect.Parameter], method: Method) -> list[int | None]:
    """For each of the first parameters, the position of the array whose name it begins with."""
    required = [spec.name for spec in method.positional]
    names = [parameter.name.lower() for parameter in _positional(parameters)[: len(required)]]
    return [next((index for index, wanted in enumerate(required) if name.startswith(wanted)), None) for name in names]


def _positional(parameters: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def taken(function: Callable[..., Any], name: str, method: Method, tunables: set[str] | None = None) -> Taken:
    """Which arguments of a method a function takes, and what to pass where a case leaves an option out.

    Left out of the call too is an option whose default in the function is the method's own, or is no value that the
    option could have: then it is the function's own word for "none", such as ``softcap=0.0`` or ``window=(-1, -1)``.
    Otherwise the call is told explicitly what the method means: ``causal=False``, ``scale=1/sqrt(d)``,
    ``window=(None, None)``, and None for a mask, bias, sink or cap that the function requires, or whose annotation allows
    it. A cap or an array by default that no annotation says could be None is judged only where a case sets it: left out it
    would mean something else than in the method, and None might mean nothing to the function.

    Args:
        function: to look at.
        name: of it, for errors.
        method: that it is to implement.
        tunables: keywords that were declared as such; by default those that the method knows.

    Raises:
        UsageError: the parameters do not fit the method.
    """
    parameters = parameters_of(function, name)
    bound = set(function.keywords) if isinstance(function, functools.partial) else set()
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    any_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if tunables is None:
        tunables = {tunable for tunable in method.tunables if tunable in named and tunable not in bound}
    for tunable in sorted(tunables - named.keys()):
        if not any_keyword:
            raise UsageError(f"tunable={tunable!r}, but should be a parameter of {name} ({', '.join(named)})")
    _check(name, parameters, method, tunables | bound)
    explicit, restrictions = {}, {}
    for option in method.required_keywords:
        if option not in named and not any_keyword:
            raise UsageError(f"{name} does not take the keyword {option!r}, but should: {method.name} requires it")
    for option in (option for option in method.keywords if option in named and option not in method.required_keywords):
        own, default = named[option].default, method.default(option)
        if own is inspect.Parameter.empty:
            explicit[option] = "the function requires it"
        elif _is_alike(own, default) or (default is None and not _is_value(option, own, method)):
            continue
        elif default is not None or option in STAND_INS or _allows_none(named[option]):
            explicit[option] = f"the function's own default is {reprlib.repr(own)}"
        else:
            restrictions[f"{option} is not None"] = f"left out, it is {reprlib.repr(own)} by the function's own default"
    options = tuple(option for option in method.keywords if option in named or option in method.required_keywords)
    return Taken(options, any_keyword, tuple(name for name in named if name in tunables), explicit, restrictions)


def _is_alike(own: Any, default: Any) -> bool:
    # Numbers only: an array by default compares element by element.
    return own is default or (isinstance(own, (bool, int, float)) and own == default)


def _allows_none(parameter: inspect.Parameter) -> bool:
    return any(word in str(parameter.annotation) for word in ("None", "Optional"))


def _is_value(option: str, own: Any, method: Method) -> bool:
    """Whether an option could have a value; else it is a function's word for none."""
    return allows(method.options[option], own) if option in method.options else hasattr(own, "shape")


def _check(name: str, parameters: Sequence[inspect.Parameter], method: Method, others: set[str]) -> None:
    required = [spec.name for spec in method.positional]
    positional = _positional(parameters)
    wanted = f"but should take ({', '.join(required)})"
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if not variadic and len(positional) < len(required):
        given = ", ".join(p.name for p in positional) or "none"
        raise UsageError(f"{name} takes the positional parameters ({given}), {wanted} as {method.name} does")
    first, roles = [p.name for p in positional[: len(required)]], _roles(parameters, method)
    permuted = sorted(role for role in roles if role is not None) == list(range(len(required))) and not fits_by_name(parameters, method)
    if permuted or set(first) & set(method.keywords):
        raise UsageError(f"{name} takes ({', '.join(first)}), {wanted} in this order, as {method.name} does: they are passed by position")
    for parameter in [*positional[len(required) :], *(p for p in parameters if p.kind is p.KEYWORD_ONLY)]:
        if parameter.name not in {*method.keywords, *others}:
            allowed = ", ".join([*method.keywords, *method.tunables])
            raise UsageError(
                f"{name} has the keyword {parameter.name!r}, which {method.name} does not have; it has {allowed} "
                f"(bind others with functools.partial)"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise UsageError(f"{name} takes {parameter.name} by position only, but should take it by keyword")
