"""Mutation operators: the ways in which a program is changed in one place.

An operator looks at one place of a function and yields what could stand there instead. None of them knows attention; the
mistakes that need to (an option that is ignored, an axis of a mask that is not looked at) are in `ignorance`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from copy import deepcopy

from conformance.mutation.places import Change, Place, Role, targets

__all__ = ["OPERATORS", "Operator"]

Operator = Callable[[Place], Iterator[Change]]

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
_OPERATIONS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
# Calls whose result they leave as it is, and calls that do not tell their arguments apart: to repeat or swap them changes nothing.
_IDEMPOTENT = (
    "all", "any", "asarray", "astype", "broadcast_to", "copy", "float", "list", "max", "maximum", "min", "minimum", "reshape", "sum",
    "zeros_like",
)  # fmt: skip
_COMMUTATIVE = ("max", "maximum", "min", "minimum", "swapaxes")
_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.MatMult)  # operations whose operands cannot be exchanged

# Functions and methods of the same arguments.
_PAIRS = (
    ("max", "min"), ("maximum", "minimum"), ("any", "all"), ("sum", "mean"), ("zeros", "ones"), ("exp", "exp2"), ("log", "log2"),
    ("zeros_like", "ones_like"), ("isneginf", "isposinf"),
)  # fmt: skip
_COUNTERPARTS = {**dict(_PAIRS), **{other: one for one, other in _PAIRS}}


def comparison(place: Place) -> Iterator[Change]:
    """``<`` for ``<=``, ``>`` for ``<`` and so on."""
    if isinstance(place.node, ast.Compare):
        for index, kind in enumerate(place.node.ops):
            for other in _COMPARISONS.get(type(kind), ()):
                changed = deepcopy(place.node)
                changed.ops[index] = other()
                yield Change(changed)


def operation(place: Place) -> Iterator[Change]:
    """``-`` for ``+``, ``/`` for ``*``, ``|`` for ``&`` and the reverse."""
    if isinstance(place.node, (ast.BinOp, ast.AugAssign)) and type(place.node.op) in _OPERATIONS:
        changed = deepcopy(place.node)
        changed.op = _OPERATIONS[type(place.node.op)]()
        yield Change(changed if isinstance(changed, ast.expr) else [changed])


def swap(place: Place) -> Iterator[Change]:
    """Exchange the operands of ``-``, ``/``, ``//``, ``%`` and ``@``, and neighbours among arguments, axes and sizes."""
    node = place.node
    if isinstance(node, ast.BinOp) and isinstance(node.op, _ORDERED):
        yield Change(ast.BinOp(node.right, node.op, node.left))
    if isinstance(node, ast.Tuple) or (isinstance(node, ast.Call) and _called(node) not in _COMMUTATIVE):
        elements = _elements(node)
        for index in range(len(elements) - 1):
            if ast.dump(elements[index]) != ast.dump(elements[index + 1]):
                changed = deepcopy(node)
                _elements(changed)[index : index + 2] = elements[index + 1], elements[index]
                yield Change(changed)


def drop_operation(place: Place) -> Iterator[Change]:
    """One operand instead of an operation, the argument instead of a call, the whole instead of a part."""
    node = place.node
    if isinstance(node, ast.BinOp):
        yield from (Change(node.left), Change(node.right))
    elif isinstance(node, ast.BoolOp):
        for index in range(len(node.values)):
            rest = node.values[:index] + node.values[index + 1 :]
            yield Change(rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest))
    elif isinstance(node, ast.UnaryOp):
        yield Change(node.operand)
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
            yield Change(node.func.value)
        elif node.args and not isinstance(node.args[0], ast.Starred):
            yield Change(node.args[0])
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield Change(node.value)


def duplicate_operation(place: Place) -> Iterator[Change]:
    """``a - b - b`` for ``a - b``, ``f(f(x))`` for ``f(x)``."""
    node = place.node
    if isinstance(node, ast.BinOp) and not isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        yield Change(ast.BinOp(node, node.op, node.right))
    elif isinstance(node, ast.Call) and _called(node) not in _IDEMPOTENT:
        twice = deepcopy(node)
        if isinstance(twice.func, ast.Attribute) and not _is_module(twice.func.value):
            twice.func.value = node
            yield Change(twice)
        elif twice.args and not isinstance(twice.args[0], ast.Starred):
            twice.args[0] = node
            yield Change(twice)


def constant(place: Place) -> Iterator[Change]:
    """One more or less for an integer, another number for a float, the other truth value, a finite number for infinity."""
    node = place.node
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield Change(ast.Constant(not value))
        elif isinstance(value, int):
            yield from (Change(_number(value + 1)), Change(_number(value - 1)))
        elif isinstance(value, float):
            yield Change(_number(1.0 if value == 0 else 0.0))
            yield Change(_number(-1.0 if value == 0 else 2 * value))
    elif isinstance(node, ast.Attribute) and node.attr == "inf":
        yield from (Change(_number(0.0)), Change(_number(1e4)))


def counterpart(place: Place) -> Iterator[Change]:
    """The minimum for the maximum, all for any, the mean for the sum, base 2 for base e."""
    node = place.node
    if isinstance(node, ast.Call) and _called(node) in _COUNTERPARTS:
        changed = deepcopy(node)
        if isinstance(changed.func, ast.Attribute):
            changed.func.attr = _COUNTERPARTS[changed.func.attr]
        elif isinstance(changed.func, ast.Name):
            changed.func.id = _COUNTERPARTS[changed.func.id]
        yield Change(changed)


def drop_keyword(place: Place) -> Iterator[Change]:
    """A keyword argument is not passed."""
    if isinstance(place.node, ast.Call):
        for index in range(len(place.node.keywords)):
            changed = deepcopy(place.node)
            del changed.keywords[index]
            yield Change(changed)


def role(place: Place) -> Iterator[Change]:
    """A name for another of the same role: the number of keys for that of queries, one array for another."""
    node = place.node
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for name in _same_role(node.id, place.roles):
            if name in place.bound:
                yield Change(ast.Name(name, ast.Load()))
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        for name in _same_role(node.attr, place.roles):
            yield Change(ast.Attribute(node.value, name, ast.Load()))


def condition(place: Place) -> Iterator[Change]:
    """Always, never, or in the opposite case."""
    node = place.node
    if isinstance(node, (ast.If, ast.IfExp)):
        for test in (ast.Constant(True), ast.Constant(False), ast.UnaryOp(ast.Not(), node.test)):
            changed = deepcopy(node)
            changed.test = test
            words = f"if {ast.unparse(node.test)} -> {ast.unparse(test)}"
            yield Change(changed if isinstance(changed, ast.expr) else [changed], words)


def bound(place: Place) -> Iterator[Change]:
    """One more or less for the end of a range, a slice or a comparison; a slice without the end."""
    node = place.node
    if isinstance(node, ast.Slice):
        for end in ("lower", "upper"):
            if (value := getattr(node, end)) is not None:
                for other in (None, *_off_by_one(value)):
                    changed = deepcopy(node)
                    setattr(changed, end, other)
                    yield Change(changed)
    elif isinstance(node, ast.Call) and _called(node) in ("range", "slice"):
        for index, value in enumerate(node.args):
            for other in _off_by_one(value):
                yield Change(ast.Call(node.func, [*node.args[:index], other, *node.args[index + 1 :]], node.keywords))
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
        for other in _off_by_one(node.comparators[0]):
            yield Change(ast.Compare(node.left, node.ops, [other, *node.comparators[1:]]))


def drop_statement(place: Place) -> Iterator[Change]:
    """A statement without which every name still has a value."""
    node = place.node
    if isinstance(node, (ast.AugAssign, ast.Expr, ast.If, ast.For)) or (isinstance(node, ast.Assign) and place.has(targets(node))):
        yield Change([ast.Pass()], f"drop {_head(node)}")


def duplicate_statement(place: Place) -> Iterator[Change]:
    """An update happens twice."""
    node = place.node
    if isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        return
    if isinstance(node, (ast.AugAssign, ast.Assign)) and _written(node) & _read(node):
        yield Change([node, node], f"twice {_head(node)}")


def reorder(place: Place) -> Iterator[Change]:
    """A statement changes places with the next one, which depends on it."""
    node = place.node
    if isinstance(node, (ast.Assign, ast.AugAssign)) and isinstance(after := place.next, (ast.Assign, ast.AugAssign)):
        shared = _read(after) & _written(node)
        if (shared and place.has(shared)) or _read(node) & _written(after):
            yield Change([after, node], f"{_head(after)} before {_head(node)}", following=1)


def loop(place: Place) -> Iterator[Change]:
    """The first round, the last one, or all but the first are left out."""
    if isinstance(place.node, ast.For):
        for part in ("[1:]", "[:-1]", "[:1]"):
            changed = deepcopy(place.node)
            changed.iter = ast.parse(f"list({ast.unparse(place.node.iter)}){part}", mode="eval").body
            yield Change([changed], f"for {ast.unparse(place.node.iter)} -> {part}")


def stale(place: Place) -> Iterator[Change]:
    """What a loop computes anew is computed in the first round only, or lags one round behind."""
    node = place.node
    if not (place.looped and isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
        return
    name, value = node.targets[0].id, ast.unparse(node.value)
    if name not in place.bound:
        yield Change(ast.parse(f"if {name!r} not in locals():\n    {name} = {value}").body, f"once {_head(node)}")
    late = f"_now = {value}\n{name} = _before_{name} if '_before_{name}' in locals() else _now\n_before_{name} = _now"
    yield Change(ast.parse(late).body, f"a round late {_head(node)}")


_OPERATORS: tuple[Operator, ...] = (
    comparison, operation, swap, drop_operation, duplicate_operation, constant, counterpart, drop_keyword, role, condition, bound,
    drop_statement, duplicate_statement, reorder, loop, stale,
)  # fmt: skip
OPERATORS = {operator.__name__.replace("_", " "): operator for operator in _OPERATORS}


def _elements(node: ast.Call | ast.Tuple) -> list[ast.expr]:
    return node.args if isinstance(node, ast.Call) else node.elts


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "np"


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""


def _number(value: float) -> ast.expr:
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))


def _off_by_one(value: ast.expr) -> list[ast.expr]:
    """One more and one less; of a number `constant` takes care."""
    if isinstance(value.operand if isinstance(value, ast.UnaryOp) else value, ast.Constant):
        return []
    return [ast.BinOp(value, kind, ast.Constant(1)) for kind in (ast.Add(), ast.Sub())]


def _same_role(name: str, roles: tuple[Role, ...]) -> list[str]:
    return [other for group in roles if name in group for other in group if other != name]


def _written(node: ast.AST) -> set[str]:
    """As `targets`, an array instead of its part."""
    return {target.partition("[")[0] for target in targets(node)}


def _read(node: ast.AST) -> set[str]:
    read = {ast.unparse(part) for part in ast.walk(node) if isinstance(part, (ast.Name, ast.Attribute)) and isinstance(part.ctx, ast.Load)}
    return read | (targets(node) if isinstance(node, ast.AugAssign) else set())


def _head(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0]
