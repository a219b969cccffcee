"""Reading a case from the line that it prints as."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

from conformance.cases.case import THEN, ArrayRecipe, Case
from conformance.cases.codes import CODE_RECIPES
from conformance.cases.integers import recipes_of_integers
from conformance.cases.layouts import LAYOUTS
from conformance.cases.masks import MASK_RECIPES
from conformance.cases.options import OptionTextError, parse_option
from conformance.cases.values import CODED_RECIPES, FLOAT_RECIPES
from conformance.errors import UsageError
from oracle import METHODS
from oracle.catalogue import Method
from oracle.formats import FORMATS
from oracle.options import Kind

__all__ = ["CaseError", "parse_case"]

_RECIPE = re.compile(
    r"^(?P<recipe>\w+)\((?P<seed>\d+)\)(?:\[(?P<axes>[\w,]*)\])?(?:\*(?P<gain>[-+.\de]+))?(?:!(?P<garbage>garbage|nan))?(?:@(?P<layout>\w+))?$"
)


class CaseError(ValueError):
    """The text is not a case; the message shows the part that is wrong."""


def parse_case(line: str) -> Case:
    """Read a case from its line.

    Raises:
        CaseError: a part of it is unknown or misspelt.
    """
    *earlier, last = line.split(f" {THEN} ")
    return replace(_parse_one(last), earlier=tuple(_parse_one(one) for one in earlier))


def _parse_one(line: str) -> Case:
    words = line.split()
    if len(words) < 2 or words[0] not in METHODS:
        raise CaseError(f"case {line!r}, but should start with a method ({', '.join(METHODS)}) and a dtype")
    if words[1] not in FORMATS:
        raise CaseError(f"dtype={words[1]!r}, but should be one of {', '.join(FORMATS)}")
    specification = METHODS[words[0]]
    groups: dict[str, dict[str, Any]] = {"dims": {}, "arrays": {}, "options": {}, "tunables": {}}
    warm, calls, invariant = False, 0, ""
    for word in words[2:]:
        name, equals, text = word.partition("=")
        if not equals:
            raise CaseError(f"case part {word!r}, but should be name=value")
        if name == "calls":
            warm, calls = (True, calls) if text == "warm" else (warm, int(_literal(word, text, int)))
        elif name == "invariant":
            invariant = _invariant(words[0], text)
        elif name in specification.signature.dims:
            groups["dims"][name] = int(_literal(word, text, int))
        elif any(spec.name == name for spec in specification.signature.inputs):
            groups["arrays"][name] = _parse_recipe(word, text, specification, name)
        elif name in specification.options:
            groups["options"][name] = _option(word, specification.options[name], text)
        else:
            groups["tunables"][name] = int(_literal(word, text, int))
    missing = [dim for dim in specification.signature.dims if dim not in {*groups["dims"], *specification.derived}]
    missing += [spec.name for spec in specification.signature.required if spec.name not in groups["arrays"]]
    if missing:
        raise CaseError(f"{missing[0]} is missing, but should be given [{line}]")
    dims, arrays, options, tunables = (groups[name] for name in ("dims", "arrays", "options", "tunables"))
    if absent := [name for name in specification.required_keywords if name not in {*options, *arrays}]:
        raise CaseError(f"{absent[0]} is missing, but should be given [{line}]")
    derived = {} if set(specification.derived) <= set(dims) else specification.derive(dims, options)
    return Case(words[0], words[1], {**derived, **dims}, arrays, options, tunables, warm, calls, invariant=invariant)


def _option(word: str, kind: Kind, text: str) -> Any:
    try:
        return parse_option(kind, text)
    except OptionTextError as error:
        raise CaseError(f"case part {word!r}, but its value {error}") from None


def _literal(word: str, text: str, kind: type) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise CaseError(f"case part {word!r}, but its value should be a Python literal") from None
    if not isinstance(value, kind):
        raise CaseError(f"case part {word!r}, but its value should be an {kind.__name__}")
    return value


def _invariant(method: str, name: str) -> str:
    from conformance.invariants import get_invariant  # which builds on this module

    try:
        return get_invariant(name, method).name
    except UsageError as error:
        raise CaseError(str(error)) from None


def _parse_recipe(word: str, text: str, method: Method, name: str) -> ArrayRecipe:
    match = _RECIPE.match(text)
    if match is None:
        raise CaseError(f"case part {word!r}, but should look like name=recipe(seed)[axes]*gain!garbage@layout")
    kind = next(spec.kind for spec in method.signature.inputs if spec.name == name)
    known = {"bool": list(MASK_RECIPES), "code": list(CODE_RECIPES), "int": []}.get(kind, [*FLOAT_RECIPES, *CODED_RECIPES])
    known += recipes_of_integers(method.domains[name]) if kind == "int" else []
    if match["recipe"] not in known:
        raise CaseError(f"case part {word!r}, but its recipe should be one of {', '.join(known)}")
    layout = match["layout"] or "contiguous"
    if layout not in LAYOUTS:
        raise CaseError(f"case part {word!r}, but its layout should be one of {', '.join(LAYOUTS)}")
    axes = None if match["axes"] is None else tuple(match["axes"].split(",")) if match["axes"] else ()
    return ArrayRecipe(match["recipe"], int(match["seed"]), axes, float(match["gain"] or 1), match["garbage"] or "", layout)
