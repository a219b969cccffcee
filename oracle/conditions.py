"""Conditions over dimensions and options, as text: ``"s > 0"``, ``"not causal or l == s"``, ``"h % g == 0"``.

Text rather than functions, because a condition crosses process boundaries, stands in certificates and is typed on the
command line. Only names, numbers, arithmetic, comparisons and boolean operators are allowed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType
from typing import Any

__all__ = ["ConditionError", "check_condition", "condition_names", "evaluate", "holds"]

_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.Add, ast.Sub, ast.Mult,
    ast.FloorDiv, ast.Mod, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In,
    ast.NotIn, ast.Name, ast.Load, ast.Constant, ast.Tuple,
)  # fmt: skip

_NOTHING: dict[str, Any] = {"__builtins__": {}}


class ConditionError(ValueError):
    """The text is not a condition, or it uses a name that the method does not have."""


@lru_cache(maxsize=8192)
def _compiled(condition: str) -> tuple[CodeType, frozenset[str]]:
    try:
        tree = ast.parse(condition.strip(), mode="eval")
    except SyntaxError as error:
        raise ConditionError(f"condition={condition!r}, but should be an expression such as 'h == g' ({error.msg})") from None
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise ConditionError(
                f"condition={condition!r}, but should use only names, numbers, comparisons, and/or/not (no {type(node).__name__})"
            )
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return compile(tree, "<condition>", "eval"), names


def condition_names(condition: str) -> frozenset[str]:
    """The dimensions and options that a condition speaks of."""
    return _compiled(condition)[1]


def check_condition(condition: str, known: set[str]) -> None:
    """Raise `ConditionError` unless the condition parses and every name in it is known."""
    unknown = sorted(condition_names(condition) - known)
    if unknown:
        raise ConditionError(f"condition={condition!r} names {unknown[0]!r}, but should use only {', '.join(sorted(known))}")


def holds(condition: str, values: Mapping[str, Any]) -> bool:
    """Evaluate a condition; a name without a value is None."""
    return bool(evaluate(condition, values))


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """The value of an expression in the language of conditions, such as ``"-(-l // block_size)"``; as `holds`."""
    code, names = _compiled(expression)
    try:
        return eval(code, _NOTHING, {name: values.get(name) for name in names})
    except (TypeError, ZeroDivisionError) as error:
        given = ", ".join(f"{name}={values.get(name)!r}" for name in sorted(names))
        raise ConditionError(f"condition={expression!r} cannot be evaluated with {given}: {error}") from None
