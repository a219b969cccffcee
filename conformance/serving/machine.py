"""A state machine over a class of caches, for a test suite of its own: Hypothesis draws the operations and shrinks what fails.

    from conformance.serving.machine import cache_machine
    from my_caches import PagedCache

    TestPagedCache = cache_machine(PagedCache).TestCase

It runs the cache in the process of the tests, where a debugger can follow it. `attest certify` judges the same operations in a
worker, with shapes, options and layouts besides; see docs/caches.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from conformance.cases.values import make_floats
from conformance.isolation.backends import from_numpy, to_numpy
from conformance.judge import compare
from conformance.serving.accounts import PageError
from conformance.serving.driver import FACTS, OPTIONAL, Session
from oracle import get_method
from oracle.formats import FORMATS
from oracle.operations import Moment, Operation, Row, join_operations, play
from oracle.readings import Expected, budget, expected
from oracle.readings.contract import contract_for

__all__ = ["CacheMachine", "cache_machine"]

# Tokens of one run, and of one operation, at most; requests at the same time.
TOKENS, AT_ONCE, REQUESTS = 120, 9, 5

# What is expected of a query, by dtype and by the tokens that it reads.
_KNOWN: dict[str, dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]] = {}

DIMS = {"h": 2, "g": 1, "d": 3, "e": 2}
BLOCK_SIZES = (2, 1, 3, 4)


class CacheMachine(RuleBasedStateMachine):
    """Operations on one cache; after each, every resident request's output is held against the oracle.

    Attributes:
        cache: the class under test.
        backend: whose arrays it takes.
        dtype: storage dtype.
        keywords: for its ``__init__``, beside those that attest knows.
    """

    cache: ClassVar[Any]
    backend: ClassVar[str] = "numpy"
    dtype: ClassVar[str] = "float32"
    keywords: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.moment: Moment | None = None
        self.tunables: dict[str, int] = {}

    @initialize(block_size=st.sampled_from(BLOCK_SIZES), window=st.sampled_from((None, None, 1, 3)))
    def start(self, block_size: int, window: int | None) -> None:
        """An empty cache."""
        form = FORMATS[self.dtype]
        shapes = {"q": (DIMS["h"], DIMS["d"]), "k": (DIMS["g"], DIMS["d"]), "v": (DIMS["g"], DIMS["e"])}
        self.plain = {name: make_floats("normal", seed, 1.0, (TOKENS, *shapes[name]), form) for seed, name in enumerate(shapes)}
        arrays = [from_numpy(self.backend, x) for x in self.plain.values()]
        taken = inspect.signature(self.cache).parameters
        self.window = window if "sliding_window" in taken else None
        self.tunables = {"block_size": block_size} if "block_size" in taken else {}
        most = {"max_requests": REQUESTS, "max_tokens": REQUESTS * TOKENS}
        facts = {name: most.get(name) or fact([], *arrays) for name, fact in FACTS.items() if name in taken}
        options = {} if self.window is None else {"sliding_window": self.window}
        self.session = Session(self.cache(**facts, **self.tunables, **options, **self.keywords), *arrays, windowed=bool(self.window))

    def can(self, verb: str) -> bool:
        """Whether the cache has what an operation takes."""
        return all(callable(getattr(self.cache, name, None)) for name in OPTIONAL.get(verb, ()))

    def within(self, state: str) -> list[int]:
        """The requests that are in a state."""
        return [] if self.moment is None else [request for request, own in self.moment.states.items() if own == state]

    @property
    def requests(self) -> dict[int, str]:
        """All requests, with their states."""
        return {} if self.moment is None else self.moment.states

    @property
    def absent(self) -> int:
        """The smallest number that no request has."""
        return next(number for number in range(REQUESTS + 1) if number not in self.requests)

    def room(self, tokens: int) -> int:
        """As many of some tokens as there are left."""
        used = sum(one.number or 0 for one in self.operations if one.verb in ("join", "grow"))
        return min(tokens, TOKENS - used)

    @precondition(lambda self: len(self.requests) < REQUESTS and self.room(1))
    @rule(tokens=st.integers(1, AT_ONCE))
    def join(self, tokens: int) -> None:
        """A request with a prompt."""
        self.do(Operation("join", self.absent, self.room(tokens)))

    @precondition(lambda self: self.within("resident") and self.room(1))
    @rule(tokens=st.integers(1, AT_ONCE), data=st.data())
    def grow(self, tokens: int, data: st.DataObject) -> None:
        """More tokens."""
        self.do(Operation("grow", self.choose(data, "resident"), self.room(tokens)))

    @precondition(lambda self: self.within("resident") and len(self.requests) < REQUESTS and self.can("fork"))
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """A copy of a request."""
        self.do(Operation("fork", self.choose(data, "resident"), self.absent))

    @precondition(lambda self: self.within("resident") and self.can("preempt"))
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        """A request loses its tokens."""
        self.do(Operation("preempt", self.choose(data, "resident")))

    @precondition(lambda self: self.within("preempted"))
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        """It gets them again."""
        self.do(Operation("resume", self.choose(data, "preempted")))

    @precondition(lambda self: self.within("resident") and self.can("swap_out"))
    @rule(data=st.data())
    def swap_out(self, data: st.DataObject) -> None:
        """A request moves elsewhere."""
        self.do(Operation("swap_out", self.choose(data, "resident")))

    @precondition(lambda self: self.within("swapped out"))
    @rule(data=st.data())
    def swap_in(self, data: st.DataObject) -> None:
        """It comes back."""
        self.do(Operation("swap_in", self.choose(data, "swapped out")))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A request leaves."""
        self.do(Operation("finish", data.draw(st.sampled_from(list(self.requests)))))

    def choose(self, data: st.DataObject, state: str) -> int:
        """A request in a state."""
        return data.draw(st.sampled_from(self.within(state)))

    def do(self, operation: Operation) -> None:
        """One operation, then the outputs of all."""
        self.operations.append(operation)
        *_, self.moment = play(self.operations)
        try:
            answers = self.session.step(self.moment)
        except PageError as error:
            raise AssertionError(f"{error}\n{self.replay}") from None
        except Exception as error:
            error.add_note(self.replay)
            raise
        self.check(self.moment, [to_numpy(self.backend, answer) for answer in answers])

    def check(self, moment: Moment, answers: list[np.ndarray]) -> None:
        """Hold the outputs of all resident requests against the oracle."""
        asked = tuple(
            Row(moment.step, request, tuple(moment.histories[request][: len(moment.histories[request]) - later]))
            for request in moment.resident
            for later in range(moment.newest(request) - 1, -1, -1)
        )
        if not asked:
            return
        got, wanted = np.concatenate(answers), self.wanted([self.visible(row) for row in asked])
        ratio, agrees = compare(got, wanted)
        if not agrees.all():
            index = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
            row = asked[int(index[0])]
            raise AssertionError(
                f"request {row.request} reads {got[index]:.9g} with its token {len(row.tokens) - 1}, but should read "
                f"{wanted.value[index]:.9g} within {wanted.budget[index]:.3g}, after operation {moment.step}, {moment.operation}\n"
                f"{self.replay}"
            )

    def visible(self, row: Row) -> tuple[int, ...]:
        """The tokens that a query reads, its own last."""
        return row.tokens if self.window is None else row.tokens[-self.window :]

    def wanted(self, reads: list[tuple[int, ...]]) -> Expected:
        """What the oracle expects of queries that read some tokens, the last of which is their own: (rows, Hq, Dv).

        Nearly all have been asked before, in an earlier operation or in another run: the tokens are always the same.
        """
        known = _KNOWN.setdefault(self.dtype, {})
        new = [read for read in dict.fromkeys(reads) if read not in known]
        if new:
            tokens = 1 + max(max(read) for read in new)
            mask = np.zeros((len(new), tokens), dtype=bool)
            for index, read in enumerate(new):
                mask[index, list(read)] = True
            queries = self.plain["q"][[read[-1] for read in new]]
            q, k, v = (np.swapaxes(x, 0, 1)[None] for x in (queries, self.plain["k"][:tokens], self.plain["v"][:tokens]))
            [bound] = budget(get_method("attention"), {"q": q, "k": k, "v": v, "mask": mask}, contract_for(self.dtype, self.dtype))
            made = expected(bound, self.dtype)
            known |= {read: (made.value[0, :, index], made.budget[0, :, index]) for index, read in enumerate(new)}
        values, budgets = zip(*(known[read] for read in reads), strict=True)
        return Expected(np.stack(values), np.stack(budgets))

    @property
    def replay(self) -> str:
        """The line that runs the operations so far in a worker."""
        given = [f"{name}={size}" for name, size in DIMS.items()]
        given.append(f"operations={join_operations(self.operations)}")
        given += [f"sliding_window={self.window}"] * (self.window is not None)
        given += [f"{name}=normal({seed})" for seed, name in enumerate(self.plain)]
        given += [f"{name}={value}" for name, value in self.tunables.items()]
        target = f"{self.cache.__module__}:{self.cache.__qualname__}"
        return f"attest replay 'target={target} backend={self.backend} continuous_batching {self.dtype} {' '.join(given)}'"


def cache_machine(cache: Any, *, backend: str = "numpy", dtype: str = "float32", **keywords: Any) -> type[CacheMachine]:
    """The state machine of a class of caches; its ``TestCase`` is a test.

    Args:
        cache: the class; see `conformance.serving.protocol`.
        backend: ``numpy``, ``torch`` or ``jax``.
        dtype: storage dtype.
        keywords: for its ``__init__``, beside those that attest knows.
    """
    return type(f"{cache.__name__}Machine", (CacheMachine,), {"cache": cache, "backend": backend, "dtype": dtype, "keywords": keywords})
