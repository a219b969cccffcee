"""Where a program can be changed: every expression and statement of a function, with what an operator must know of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Change", "Place", "Role", "places", "targets"]

Role = Sequence[str]  # names that a programmer may mistake for each other


@dataclass(frozen=True)
class Change:
    """What stands in a node's place.

    Attributes:
        new: an expression for an expression, statements for a statement.
        words: what was done; "" where the texts before and after say it.
        following: how many of the statements that follow are replaced too.
    """

    new: ast.expr | list[ast.stmt]
    words: str = ""
    following: int = 0


@dataclass(frozen=True)
class Place:
    """A node of a function's syntax tree and where it hangs.

    Attributes:
        node: an expression or a statement.
        parent, field, index: the node is ``parent.field`` or, in a list, ``parent.field[index]``.
        looped: whether it is a statement of a loop's body.
        bound: names that have a value before it.
        roles: groups of names that may be mistaken for each other.
    """

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None
    looped: bool
    bound: frozenset[str]
    roles: tuple[Role, ...]

    @property
    def next(self) -> ast.stmt | None:
        """The statement that follows a statement."""
        assert self.index is not None, "a statement stands in a block"
        following = getattr(self.parent, self.field)[self.index + 1 :]
        return following[0] if following else None

    def has(self, names: set[str]) -> bool:
        """Whether names have a value here; parts of arrays and objects are taken to have one."""
        return all(name in self.bound or not name.isidentifier() for name in names)

    def words(self, change: Change) -> str:
        """What was changed: the text before and after, unless the change says it better."""
        new = change.new if isinstance(change.new, list) else [change.new]
        return change.words or f"{ast.unparse(self.node)} -> {' '.join(map(ast.unparse, new))}"

    @contextmanager
    def put(self, change: Change) -> Iterator[None]:
        """Change the tree for a while."""
        if self.index is None:
            setattr(self.parent, self.field, change.new)
            yield
            setattr(self.parent, self.field, self.node)
        else:
            block = getattr(self.parent, self.field)
            kept = list(block)
            block[self.index : self.index + 1 + change.following] = change.new if isinstance(change.new, list) else [change.new]
            yield
            block[:] = kept


def places(function: ast.FunctionDef, roles: tuple[Role, ...] = ()) -> Iterator[Place]:
    """Every statement and expression of a function's body, in order; annotations and defaults are left alone."""
    yield from _block(function, "body", _parameters(function), roles, looped=False)


def targets(node: ast.AST) -> set[str]:
    """What an assignment gives a value, as it is written: names, attributes, parts of arrays."""
    assigned = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, (ast.AugAssign, ast.AnnAssign)) else []
    flat = [element for target in assigned for element in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return {ast.unparse(target) for target in flat}


def _block(parent: ast.AST, field: str, known: set[str], roles: tuple[Role, ...], looped: bool) -> Iterator[Place]:
    for index, statement in enumerate(list(getattr(parent, field))):
        if isinstance(statement, ast.FunctionDef):
            yield from _block(statement, "body", known | _parameters(statement), roles, looped=False)
            continue
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        yield Place(statement, parent, field, index, looped, frozenset(known), roles)
        if isinstance(statement, ast.For):
            known |= _stored(statement.target)
        yield from _expressions(statement, frozenset(known), roles)
        for part in ("body", "orelse"):
            if getattr(statement, part, None):
                yield from _block(statement, part, known, roles, looped=looped or isinstance(statement, (ast.For, ast.While)))
        known |= _stored(statement)


def _expressions(parent: ast.AST, known: frozenset[str], roles: tuple[Role, ...]) -> Iterator[Place]:
    for field, value in ast.iter_fields(parent):
        if isinstance(parent, ast.stmt) and field in ("annotation", "body", "orelse"):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, (ast.expr, ast.comprehension, ast.keyword)):
                inside = known | _stored(node)  # a comprehension's own names
                if isinstance(node, ast.expr):
                    yield Place(node, parent, field, index if isinstance(value, list) else None, False, inside, roles)
                yield from _expressions(node, inside, roles)


def _parameters(function: ast.FunctionDef) -> set[str]:
    return {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}


def _stored(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
