"""Mutation operators: the ways in which a program is changed in one place.

An operator looks at one node of a function's syntax tree and yields what could stand in its place: an expression for an
expression, statements for a statement. None of them knows attention; the mistakes that need to (an option that is
ignored, an axis of a mask that is not looked at) are in `programs`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

__all__ = ["OPERATORS", "Change", "Located", "Operator", "Place", "Role", "places"]

Role = Sequence[str]  # names that a programmer may mistake for each other


@dataclass(frozen=True)
class Place:
    """A node and where it hangs.

    Attributes:
        node: an expression or a statement.
        siblings: the statements of its block, for a statement.
        looped: whether it is a statement of a loop's body.
        bound: names that have a value before the statement.
        roles: groups of names that may be mistaken for each other.
    """

    node: ast.AST
    siblings: list[ast.stmt] | None
    looped: bool
    bound: frozenset[str]
    roles: tuple[Role, ...]


@dataclass(frozen=True)
class Change:
    """What stands in a node's place.

    Attributes:
        new: an expression, or statements.
        words: what was done; "" where the texts before and after say it.
        following: how many of the statements that follow are replaced too.
    """

    new: ast.expr | list[ast.stmt]
    words: str = ""
    following: int = 0


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
    if isinstance(node, (ast.AugAssign, ast.Expr, ast.If, ast.For)) or (isinstance(node, ast.Assign) and _had(_targets(node), place)):
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
    if place.siblings is None or not isinstance(node, (ast.Assign, ast.AugAssign)):
        return
    following = place.siblings[place.siblings.index(node) + 1 :][:1]
    if following and isinstance(following[0], (ast.Assign, ast.AugAssign)):
        after = following[0]
        shared = _read(after) & _written(node)
        if (shared and _had(shared, place)) or _read(node) & _written(after):
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


@dataclass(frozen=True)
class Located:
    """A place, and how to change what stands there."""

    place: Place
    parent: ast.AST
    field: str
    index: int | None

    def changes(self, operators: Mapping[str, Operator]) -> Iterator[tuple[str, Change]]:
        """What the operators make of the place, each with the name of its operator."""
        for name, operator in operators.items():
            for change in operator(self.place):
                yield name, change

    def words(self, change: Change) -> str:
        """What was changed: the text before and after, unless the change says it better."""
        return change.words or f"{ast.unparse(self.place.node)} -> {' '.join(map(ast.unparse, _listed(change.new)))}"

    @contextmanager
    def put(self, change: Change) -> Iterator[None]:
        """Change the tree for a while."""
        if self.index is None:
            setattr(self.parent, self.field, change.new)
            yield
            setattr(self.parent, self.field, self.place.node)
        else:
            block = getattr(self.parent, self.field)
            kept = list(block)
            block[self.index : self.index + 1 + change.following] = _listed(change.new)
            yield
            block[:] = kept


def places(function: ast.FunctionDef, roles: tuple[Role, ...] = ()) -> Iterator[Located]:
    """Every expression and statement of a function's body, in order; annotations and defaults are left alone."""
    known = {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
    yield from _block(function, "body", known, roles, looped=False)


def _block(parent: ast.AST, field: str, known: set[str], roles: tuple[Role, ...], looped: bool) -> Iterator[Located]:
    statements: list[ast.stmt] = getattr(parent, field)
    for index, statement in enumerate(list(statements)):
        if isinstance(statement, ast.FunctionDef):
            inner = {argument.arg for argument in ast.walk(statement.args) if isinstance(argument, ast.arg)}
            yield from _block(statement, "body", known | inner, roles, looped=False)
            continue
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        yield Located(Place(statement, statements, looped, frozenset(known), roles), parent, field, index)
        if isinstance(statement, ast.For):
            known |= _names(statement.target)
        yield from _expressions(statement, frozenset(known), roles)
        known |= _targets(statement) | _names(statement)
        for name in ("body", "orelse"):
            if getattr(statement, name, None):
                yield from _block(statement, name, known, roles, looped=looped or isinstance(statement, (ast.For, ast.While)))


def _expressions(parent: ast.AST, known: frozenset[str], roles: tuple[Role, ...]) -> Iterator[Located]:
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "body", "orelse") and isinstance(parent, ast.stmt):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, (ast.expr, ast.comprehension, ast.keyword)):
                inside = known | _names(node)  # a comprehension's own names
                if isinstance(node, ast.expr):
                    yield Located(Place(node, None, False, inside, roles), parent, field, index if isinstance(value, list) else None)
                yield from _expressions(node, inside, roles)


def _listed(new: ast.expr | list[ast.stmt]) -> Sequence[ast.AST]:
    return new if isinstance(new, list) else [new]


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
    return [] if isinstance(value, ast.Constant) else [ast.BinOp(value, kind, ast.Constant(1)) for kind in (ast.Add(), ast.Sub())]


def _same_role(name: str, roles: tuple[Role, ...]) -> list[str]:
    return [other for group in roles if name in group for other in group if other != name]


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def _targets(node: ast.AST) -> set[str]:
    """What an assignment gives a value: names, and attributes as they are written."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, (ast.AugAssign, ast.AnnAssign)) else []
    flat = [element for target in targets for element in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return {ast.unparse(target) for target in flat}


def _had(names: set[str], place: Place) -> bool:
    """Whether names and parts of objects have a value before a statement, as far as one can tell without running it."""
    return all(name in place.bound or not name.isidentifier() for name in names)


def _written(node: ast.AST) -> set[str]:
    """As `_targets`, an array instead of its part."""
    return {target.partition("[")[0] for target in _targets(node)}


def _read(node: ast.AST) -> set[str]:
    read = {ast.unparse(part) for part in ast.walk(node) if isinstance(part, (ast.Name, ast.Attribute)) and isinstance(part.ctx, ast.Load)}
    return read | (_targets(node) if isinstance(node, ast.AugAssign) else set())


def _head(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0]
