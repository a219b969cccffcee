"""Programs to mutate: the source of an implementation, or of a specification, made into one namespace again and again.

A mutant is the program with one definition compiled anew. Its loops count their rounds and stop at a limit, memory that it
does not write holds a huge number, and nothing of it reaches the modules that it was read from.
"""

from __future__ import annotations
import __future__

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from conformance.mutation.ignorance import first_along, ignorance
from conformance.mutation.operators import OPERATORS, Operator
from conformance.mutation.places import Role, places
from conformance.registry import Implementation
from oracle import get_method

__all__ = ["EndlessLoopError", "Mutant", "Program", "specification"]

Function = Callable[..., Any]

# Rounds of all loops of a call: many times what the smallest tile needs on the longest case.
MOST_ROUNDS = 200_000

# Decorators that tell the catalogue or the registry of a definition.
DECLARING = ("method", "register")


class EndlessLoopError(Exception):
    """The loops of a call went round more often than any right call's."""


@dataclass(frozen=True, eq=False)
class Mutant:
    """A program with one change.

    Attributes:
        name: function, text before and text after: stable until that function changes.
        operator: name of the operator.
        source: of the definition that was changed.
        program: whose definition it was.
        position: of the definition among the program's statements.
    """

    name: str
    operator: str
    source: str
    program: Program = field(repr=False)
    position: int = field(repr=False)

    @cached_property
    def function(self) -> Function:
        """Takes the program's arguments by keyword."""
        return self.program.linked({self.position: _compile(ast.parse(self.source).body[0])})


@dataclass(frozen=True, eq=False)
class Program:
    """The source of one function, with everything that it is made of.

    Attributes:
        name: shown in reports.
        modules: names of the modules whose definitions make it up, those that others need first.
        entry: name of the function to call, with all arguments by keyword.
        targets: names of the functions, classes and methods to mutate.
        implementation: what the function claims to be: cases are drawn for it.
        roles: groups of names that may be mistaken for each other.
    """

    name: str
    modules: tuple[str, ...]
    entry: str
    targets: tuple[str, ...]
    implementation: Implementation
    roles: tuple[Role, ...] = ()

    @cached_property
    def statements(self) -> list[ast.stmt]:
        """All top-level statements of the modules, without what declares them or imports them from one another."""
        statements: list[ast.stmt] = []
        for name in self.modules:
            for statement in ast.parse(inspect.getsource(import_module(name))).body:
                if isinstance(statement, ast.ImportFrom) and statement.module in {*self.modules, "__future__"}:
                    continue
                if isinstance(statement, ast.FunctionDef):
                    statement.decorator_list = [
                        ast.Name("declared", ast.Load()) if _declares(decorator) else decorator for decorator in statement.decorator_list
                    ]
                statements.append(statement)
        missing = {target.partition(".")[0] for target in (*self.targets, self.entry)} - {_name(statement) for statement in statements}
        if missing:
            raise ValueError(f"{sorted(missing)[0]} is not defined in {', '.join(self.modules)}, but should be [{self.name}]")
        return statements

    @cached_property
    def original(self) -> Function:
        """The function without a change."""
        return self.linked({})

    def mutants(self, operators: Mapping[str, Operator] = OPERATORS) -> Iterator[Mutant]:
        """Every change of every target, each result once; then the options and axes that the entry ignores."""
        seen = {ast.unparse(statement) for statement in self.statements}
        names: dict[str, int] = {}
        for position, operator, words, changed in self._changes(operators):
            source = ast.unparse(changed)
            if source not in seen:
                seen.add(source)
                names[words] = names.get(words, 0) + 1
                name = words if names[words] == 1 else f"{words} (no. {names[words]})"
                yield Mutant(name, operator, source, self, position)

    def linked(self, changed: Mapping[int, CodeType]) -> Function:
        """The entry of a new namespace in which some definitions, by their position, are others."""
        namespace: dict[str, Any] = {"__name__": self.modules[0], "first_along": first_along, "declared": _declared}
        for position, code in enumerate(self._compiled):
            exec(changed.get(position, code), namespace)
        if "np" in namespace:
            namespace["np"] = _POISONED_NUMPY
        rounds = _Rounds(namespace[self.entry])
        namespace["next_round"] = rounds.next
        return rounds

    @cached_property
    def _compiled(self) -> list[CodeType]:
        return [_compile(statement) for statement in self.statements]

    def _changes(self, operators: Mapping[str, Operator]) -> Iterator[tuple[int, str, str, ast.stmt]]:
        """Position of the changed definition, operator, words, and the definition, which changes back on the next step."""
        for position, statement in enumerate(deepcopy(self.statements)):
            for qualified, function in _functions(statement):
                if not {qualified, _name(statement)} & {*self.targets}:
                    continue
                for place in places(function, self.roles):
                    for name, operator in operators.items():
                        for change in operator(place):
                            with place.put(change):
                                yield position, name, f"{qualified}: {place.words(change)}", statement
            if _name(statement) == self.entry:
                assert isinstance(statement, ast.FunctionDef), "the entry is a function"
                for ignored in ignorance(self.implementation):
                    changed = deepcopy(statement)
                    changed.body[0:0] = ast.parse(ignored.statement).body
                    yield position, ignored.operator, ignored.words, changed


def specification(method: str, targets: tuple[str, ...], roles: tuple[Role, ...] = ()) -> Program:
    """The specification of a method as a program."""
    spec = get_method(method)
    name = f"specification of {method}"
    return Program(name, (spec.spec.__module__,), method, targets, Implementation(name, method, "numpy", "", options=spec.keywords), roles)


class _Rounds:
    """Calls a function and counts the rounds of its loops."""

    def __init__(self, function: Function) -> None:
        self._function, self._left = function, 0

    def __call__(self, **arguments: Any) -> Any:
        self._left = MOST_ROUNDS
        return self._function(**arguments)

    def next(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise EndlessLoopError(f"more than {MOST_ROUNDS} rounds")


class _CountRounds(ast.NodeTransformer):
    def visit_For(self, node: ast.For) -> ast.For:
        return self._counted(node)

    def visit_While(self, node: ast.While) -> ast.While:
        return self._counted(node)

    def _counted(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, ast.parse("next_round()").body[0])
        return node


def _compile(statement: ast.stmt) -> CodeType:
    counted = _CountRounds().visit(deepcopy(statement))
    module = ast.fix_missing_locations(ast.Module([counted], []))
    return compile(module, "<mutant>", "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)


def _poisoned_numpy() -> ModuleType:
    """NumPy, with a huge number in memory that nobody has written."""
    poisoned = ModuleType("numpy")
    vars(poisoned).update(vars(np))

    def empty(shape: Any, dtype: Any = np.float64) -> np.ndarray:
        return np.full(shape, np.finfo(dtype).max if np.dtype(dtype).kind == "f" else 1, dtype)

    vars(poisoned).update(empty=empty, empty_like=lambda array: empty(array.shape, array.dtype))
    return poisoned


_POISONED_NUMPY = _poisoned_numpy()


def _name(statement: ast.stmt) -> str:
    return statement.name if isinstance(statement, (ast.FunctionDef, ast.ClassDef)) else ""


def _declared(function: Any) -> Any:
    """A function that the catalogue does not learn of; specifications call one another by their `spec`."""
    function.spec = function
    return function


def _declares(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id in DECLARING


def _functions(statement: ast.stmt) -> Iterator[tuple[str, ast.FunctionDef]]:
    if isinstance(statement, ast.FunctionDef):
        yield statement.name, statement
    elif isinstance(statement, ast.ClassDef):
        for part in statement.body:
            if isinstance(part, ast.FunctionDef):
                yield f"{statement.name}.{part.name}", part
