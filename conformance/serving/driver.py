"""From a class of caches to a function that a case can call: the operations of a script, one by one, on a cache of its own.

Runs in the worker process, like the class that it drives.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.errors import DriverError, UsageError
from conformance.serving.accounts import Pages, shows_pages
from conformance.serving.protocol import REQUIRED
from oracle.catalogue import Method
from oracle.operations import Moment, Operation, parse_operations, play

__all__ = ["AnswerChangedError", "CacheDriver", "Session", "is_cache"]

Array = Any  # an array of the backend

# What a script does besides what every cache can, with the methods that it takes.
OPTIONAL = {"fork": ("fork",), "preempt": ("preempt",), "swap_out": ("swap_out", "swap_in")}


# So many of the newest answers are looked at again after later operations.
REMEMBERED = 16


class AnswerChangedError(DriverError):
    """A cache wrote to what it had given; the message says to which answer, and at which operation."""

    kind = "changed-later"


@dataclass
class _Given:
    """An answer: itself, what it was, and for which request after which operation."""

    answer: Array
    was: Array
    where: str


def is_cache(found: object) -> bool:
    """Whether something is a class with the methods of a cache."""
    return inspect.isclass(found) and all(callable(getattr(found, name, None)) for name in REQUIRED)


class Session:
    """One cache, driven operation by operation.

    Args:
        cache: to drive.
        q, k, v: of the tokens in the order in which the operations bring them, (n, heads, width).
        windowed: whether it may drop what lies before a sliding window.
    """

    def __init__(self, cache: Any, q: Array, k: Array, v: Array, *, windowed: bool = False) -> None:
        self.cache, self.q, self.k, self.v = cache, q, k, v
        self.pages = Pages(cache, windowed, self._alike) if shows_pages(cache) else None
        self._kept = [_copy(x) for x in (k, v)]
        self._given: deque[_Given] = deque(maxlen=REMEMBERED)

    def step(self, moment: Moment) -> list[Array]:
        """Do one operation; the outputs of every resident request, (n, Hq, Dv) each, in the order in which they joined.

        Raises:
            PageError: pages do not add up afterwards.
            AnswerChangedError: an earlier answer is no longer what it was.
            TypeError, ValueError: the cache answers with something else than what was asked for.
        """
        try:
            self._do(moment.operation, moment)
            self._use_otherwise(moment)
            if self.pages is not None:
                self.pages.check(moment)
            queries = {}
            for request in moment.resident:
                history = moment.histories[request]
                queries[request] = self.q[history[len(history) - moment.newest(request) :]]
            answers = self.cache.attend(dict(queries)) if queries else {}
        finally:
            self._put_back(moment)
        checked = [self._answer(answers, request, queries[request], moment) for request in queries]
        for given in self._given:
            if not _same(given.answer, given.was):
                raise AnswerChangedError(f"what attend gave {given.where} changed at operation {moment.step}, {moment.operation}")
        self._given.extend(_Given(one, _copy(one), _where(request, moment)) for request, one in zip(queries, checked, strict=True))
        return checked

    def _alike(self, one: list[int], other: list[int]) -> bool:
        """Whether tokens have the same keys and values."""
        return one == other or (len(one) == len(other) and all(bool((x[one] == x[other]).all()) for x in self._kept))

    def _use_otherwise(self, moment: Moment) -> None:
        """Overwrite what was just appended where it came from, as an engine does with its buffers: a cache must have copied it."""
        fed = slice(moment.fed.start, moment.fed.stop)
        for x in (self.k, self.v):
            if _writable(x):
                x[fed] = float("nan")

    def _put_back(self, moment: Moment) -> None:
        fed = slice(moment.fed.start, moment.fed.stop)
        for x, own in zip((self.k, self.v), self._kept, strict=True):
            if _writable(x):
                x[fed] = own[fed]

    def _do(self, operation: Operation, moment: Moment) -> None:
        cache, request = self.cache, operation.request
        if operation.verb in ("join", "grow"):
            fed = slice(moment.fed.start, moment.fed.stop)
            cache.append(request, self.k[fed], self.v[fed])
        elif operation.verb == "resume":
            cache.append(request, self.k[moment.histories[request]], self.v[moment.histories[request]])
        elif operation.verb == "fork":
            cache.fork(request, operation.number)
        else:
            getattr(cache, operation.verb)(request)

    def _answer(self, answers: Mapping[int, Array], request: int, queries: Array, moment: Moment) -> Array:
        where = _where(request, moment)
        if request not in answers:
            raise ValueError(f"attend gives nothing {where}")
        answer, wanted = answers[request], (*queries.shape[:2], self.v.shape[2])
        if type(answer) is not type(queries):
            raise TypeError(f"attend gives a {type(answer).__name__} {where}, but should give a {type(queries).__name__}")
        if tuple(answer.shape) != wanted or answer.dtype != queries.dtype:
            raise ValueError(
                f"attend gives {answer.dtype} {tuple(answer.shape)} {where}, but should give {queries.dtype} {wanted} (n, Hq, Dv)"
            )
        return answer


def _where(request: int, moment: Moment) -> str:
    return f"for request {request} after operation {moment.step}, {moment.operation}"


def _copy(x: Array) -> Array:
    return x.copy() if isinstance(x, np.ndarray) else x.clone()


def _same(x: Array, other: Array) -> bool:
    """Whether two arrays have the same elements, NaN included."""
    return bool(((x == other) | ((x != x) & (other != other))).all())


def _writable(x: Array) -> bool:
    """Whether each element of an array may be written, and lies in memory of its own."""
    strides = x.strides if isinstance(x, np.ndarray) else x.stride()
    return (not isinstance(x, np.ndarray) or x.flags.writeable) and all(
        stride or size <= 1 for stride, size in zip(strides, x.shape, strict=True)
    )


class CacheDriver:
    """A class of caches as an implementation of `continuous_batching`.

    Its signature is read off the parameters of the class; see `conformance.serving.protocol`.

    Args:
        cache: the class.
        name: of it, for errors.
        method: that it implements.
        tunables: parameters that were declared as such; by default those that the method knows.

    Raises:
        UsageError: it is no class of caches, or wants to know what attest cannot tell.
    """

    def __init__(self, cache: Any, name: str, method: Method, tunables: set[str] | None = None) -> None:
        if not inspect.isclass(cache):
            raise UsageError(f"{name} is no class, but {method.name} is implemented by classes of caches (see docs/caches.md)")
        if missing := [needed for needed in REQUIRED if not callable(getattr(cache, needed, None))]:
            raise UsageError(f"{name} has no method {missing[0]}, but should have {', '.join(REQUIRED)} (see docs/caches.md)")
        self.cache, self.name = cache, name
        self._wants = _parameters(cache, name)
        passed = {*method.keywords, *(method.tunables if tunables is None else tunables)}
        for parameter in self._wants.values():
            if parameter.default is parameter.empty and parameter.name not in {*passed, *FACTS}:
                known = ", ".join([*FACTS, *sorted(passed - {"operations"})])
                raise UsageError(f"{name} requires {parameter.name!r}, but should require only some of {known} (see docs/caches.md)")
        options = [parameter for parameter in self._wants.values() if parameter.name in passed]
        arrays = [inspect.Parameter(spec.name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for spec in method.positional]
        keywords = [inspect.Parameter("operations", inspect.Parameter.KEYWORD_ONLY)]
        keywords += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in options]
        self.__signature__ = inspect.Signature([*arrays, *keywords])

    @property
    def restrictions(self) -> dict[str, str]:
        """Conditions on scripts that follow from what the class cannot do, with reasons."""
        return {
            f"'{verb}' not in operations": f"it has no {' and '.join(lacking)}"
            for verb, needed in OPTIONAL.items()
            if (lacking := [name for name in needed if not callable(getattr(self.cache, name, None))])
        }

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a certificate must say of how it was judged."""
        if shows_pages(self.cache):
            return ()
        return ("its pages are not counted, nor are free ones poisoned: it has no block_tables and free_blocks (docs/caches.md)",)

    def __call__(self, q: Array, k: Array, v: Array, *, operations: str, **options: Any) -> Array:
        """Make a cache and run a script on it; see `oracle.continuous_batching`."""
        moments = list(play(parse_operations(operations)))
        facts = {name: fact(moments, q, k, v) for name, fact in FACTS.items() if name in self._wants}
        cache = self.cache(**facts, **options)
        session = Session(cache, q, k, v, windowed=options.get("sliding_window") is not None)
        answers = [answer for moment in moments for answer in session.step(moment)]
        shape = (sum(len(answer) for answer in answers), q.shape[1], v.shape[2])
        if not isinstance(q, np.ndarray) and hasattr(q, "__array_namespace__"):  # JAX's arrays never change: they are joined
            library = q.__array_namespace__()
            return library.concatenate(answers) if answers else library.zeros(shape, dtype=q.dtype)
        out = np.empty(shape, dtype=q.dtype) if isinstance(q, np.ndarray) else q.new_empty(shape)
        filled = 0
        for answer in answers:
            out[filled : filled + len(answer)] = answer
            filled += len(answer)
        return out


def _parameters(cache: type, name: str) -> dict[str, inspect.Parameter]:
    try:
        parameters = list(inspect.signature(cache).parameters.values())
    except (TypeError, ValueError):
        raise UsageError(f"{name} has no readable __init__, but should have one in Python") from None
    if positional := [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]:
        raise UsageError(f"{name} takes {positional[0]} by position only, but should take it by keyword")
    return {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _most(moments: list[Moment], count: Callable[[Moment], int]) -> int:
    return max((count(moment) for moment in moments), default=0)


# What a class may want to know before the first token, by the name of its parameter.
FACTS: dict[str, Callable[[list[Moment], Array, Array, Array], Any]] = {
    "num_kv_heads": lambda moments, q, k, v: k.shape[1],
    "head_dim": lambda moments, q, k, v: k.shape[2],
    "value_dim": lambda moments, q, k, v: v.shape[2],
    "dtype": lambda moments, q, k, v: k.dtype,
    "device": lambda moments, q, k, v: k.device,
    "max_requests": lambda moments, q, k, v: _most(moments, lambda moment: len(moment.histories)),
    "max_tokens": lambda moments, q, k, v: _most(moments, lambda moment: sum(map(len, moment.histories.values()))),
}
