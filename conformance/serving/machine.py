"""A state machine over a class of caches, for a test suite of its own: Hypothesis draws the operations, and what fails is shrunk.

    from conformance.serving.machine import cache_machine
    from my_caches import PagedCache

    TestPagedCache = cache_machine(PagedCache).TestCase

It runs the cache in the process of the tests, where a debugger can follow it. `attest certify` judges the same operations in a
worker, with shapes and layouts besides; see docs/caches.md.

Hypothesis shrinks the choices behind a script, and comes to rest where one that is as long as another has to be tried in between:
``join(0,1);finish(0);join(0,1);preempt(0)``. So its `TestCase` goes on from there with the steps by which `attest certify` shrinks.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import lru_cache, wraps
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from conformance.serving.driver import OPTIONAL
from conformance.serving.trial import REQUESTS, TOKENS, Subject, Trial, shortest
from oracle.operations import MOST_ASKED, Operation

__all__ = ["CacheMachine", "cache_machine"]

# Tokens of one operation, at most.
AT_ONCE = 9

BLOCK_SIZES = (2, 1, 3, 4)

# A prompt of more pages than a byte can number, of the size that is drawn or of a usual one, so long that its last token alone asks.
LONG, USUAL_BLOCK = 257, 16

# Seconds for the shortest script of a failure.
SHRINKING = 20.0

# Where an error keeps the trial that it is of.
TRIAL = "attest_trial"


class _ShrinkingTestCase:
    """Makes a machine's `TestCase` one that shrinks what fails; see `shortened`."""

    def __get__(self, machine: object, owner: type[CacheMachine]) -> type[Any]:
        own: Any = super(CacheMachine, owner).TestCase
        return _shrinking(own)


@lru_cache
def _shrinking(test_case: type[Any]) -> type[Any]:
    @wraps(test_case.runTest)  # with the marks by which pytest knows a test of Hypothesis
    def run(self: Any) -> None:
        try:
            test_case.runTest(self)
        except Exception as error:
            for one in _each(error):
                _shorten(one)
            raise

    # One failure is enough to shrink: others are often the same mistake, as another operation meets it.
    one = settings(test_case.settings, report_multiple_bugs=False)
    return type(test_case.__name__, (test_case,), {"runTest": run, "settings": one, "__module__": test_case.__module__})


def _each(error: Exception) -> Iterator[Exception]:
    """Hypothesis raises several failures together."""
    if isinstance(error, ExceptionGroup):
        for one in error.exceptions:
            yield from _each(one)
    else:
        yield error


def _shorten(error: Exception) -> None:
    """Replace the note that replays a failure by that of the shortest script which fails alike."""
    if (trial := vars(error).get(TRIAL)) is None:
        return
    short, own = shortest(trial, error, SHRINKING)
    if own is not error:
        error.__notes__.remove(trial.replay)
        error.add_note(f"In short: {own}\n{short.replay}")


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

    TestCase = _ShrinkingTestCase()

    @initialize(
        block_size=st.sampled_from(BLOCK_SIZES), sliding_window=st.sampled_from((None, None, 1, 3)),
        scale=st.sampled_from((None, None, 0.3)), tokens=st.integers(1, AT_ONCE), long=st.sampled_from((False,) * 9 + (True,)),
    )  # fmt: skip
    def start(self, tokens: int, long: bool = False, **choices: Any) -> None:
        """A cache with one request: Hypothesis may never let another join."""
        subject = Subject(self.cache, self.backend, self.dtype, self.keywords)
        block = choices["block_size"] if "block_size" in inspect.signature(self.cache).parameters else USUAL_BLOCK
        tokens += max(LONG * block, MOST_ASKED) if long else 0
        self.trial = Trial(subject, choices, TOKENS + (tokens if long else 0))
        self.do(Operation("join", 0, tokens))

    def can(self, verb: str) -> bool:
        """Whether the cache has what an operation takes."""
        return all(callable(getattr(self.cache, name, None)) for name in OPTIONAL.get(verb, ()))

    def within(self, state: str) -> list[int]:
        """The requests that are in a state."""
        return [request for request, own in self.requests.items() if own == state]

    @property
    def requests(self) -> dict[int, str]:
        """All requests, with their states."""
        return self.trial.states

    @property
    def absent(self) -> int:
        """The smallest number that no request has."""
        return next(number for number in range(REQUESTS + 1) if number not in self.requests)

    def room(self, tokens: int) -> int:
        """As many of some tokens as there are left."""
        return min(tokens, self.trial.left)

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

    @precondition(lambda self: self.within("resident") and self.room(REQUESTS) == REQUESTS)
    @rule()
    def decode(self) -> None:
        """A token more for each, which is what a server does most of the time."""
        for request in self.within("resident"):
            self.do(Operation("grow", request, 1))

    @precondition(lambda self: not self.requests and not self.room(1))
    @rule()
    def idle(self) -> None:
        """All have left and no tokens are left: Hypothesis wants a rule that applies, whatever came before."""

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
        try:
            self.trial.do(operation)
        except Exception as error:
            error.add_note(self.trial.replay)
            vars(error)[TRIAL] = self.trial
            raise


def cache_machine(cache: Any, *, backend: str = "numpy", dtype: str = "float32", **keywords: Any) -> type[CacheMachine]:
    """The state machine of a class of caches; its ``TestCase`` is a test.

    Args:
        cache: the class; see `conformance.serving.protocol`.
        backend: ``numpy``, ``torch`` or ``jax``.
        dtype: storage dtype.
        keywords: for its ``__init__``, beside those that attest knows.
    """
    return type(f"{cache.__name__}Machine", (CacheMachine,), {"cache": cache, "backend": backend, "dtype": dtype, "keywords": keywords})
