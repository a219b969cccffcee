"""One cache, driven operation by operation in this process and held against the oracle, and the shortest script on which it still fails."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np

from conformance.cases.scripts import simpler_scripts
from conformance.cases.values import make_floats
from conformance.isolation.backends import from_numpy, to_numpy
from conformance.judge import compare
from conformance.serving.accounts import PageError
from conformance.serving.driver import FACTS, AnswerChangedError, Session
from oracle import get_method
from oracle.formats import FORMATS
from oracle.operations import MOST_ASKED, Moment, Operation, Row, count_tokens, join_operations, parse_operations, play
from oracle.readings import Expected, budget, expected
from oracle.readings.contract import contract_for

__all__ = ["REQUESTS", "TOKENS", "AnswerWrong", "PagesWrong", "Subject", "Trial", "shortest"]

# Tokens of one trial, besides those of a long prompt, and requests at the same time, at most.
TOKENS, REQUESTS = 120, 5

# Grouped heads, and widths that are all different, so that none stands for another.
DIMS = {"h": 4, "g": 2, "d": 3, "e": 2}

# What is simpler as it is smaller.
SIZES = ("block_size", "sliding_window")

# What is expected of a query, by dtype and scale, and by the tokens that it reads: nearly all have been asked before, in an earlier
# operation or in another trial, as the tokens are always the same.
_KNOWN: dict[tuple[str, float | None], dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]] = {}


class AnswerWrong(AssertionError):
    """A cache answers wrongly; the message says to which request, and after which operation."""


class PagesWrong(AssertionError):
    """The pages of a cache do not add up; the message says which page, whose, and after which operation."""


@dataclass(frozen=True)
class Subject:
    """A class of caches and how it is to be made.

    Attributes:
        cache: the class; see `conformance.serving.protocol`.
        backend: whose arrays it takes.
        dtype: storage dtype.
        keywords: for its ``__init__``, beside those that attest knows.
    """

    cache: Any
    backend: str = "numpy"
    dtype: str = "float32"
    keywords: Mapping[str, Any] = field(default_factory=dict)


class Trial:
    """A cache and what has happened to it.

    Args:
        subject: whose cache to make.
        choices: ``block_size``, ``sliding_window`` and ``scale``, of which those that the class does not take have no effect; None
            for its defaults.
        tokens: how many its operations may bring.

    Attributes:
        operations: that were done.
        moment: what is true after them; None before the first.
    """

    def __init__(self, subject: Subject, choices: Mapping[str, Any], tokens: int = TOKENS) -> None:
        taken = inspect.signature(subject.cache).parameters
        self.subject, self.tokens = subject, tokens
        self.choices = {name: value for name, value in choices.items() if name in taken and value is not None}
        self.choices |= {name: value for name, value in subject.keywords.items() if name in choices}
        self.window: int | None = self.choices.get("sliding_window")
        self.scale: float | None = self.choices.get("scale")
        self.operations: list[Operation] = []
        self.moment: Moment | None = None
        self._moments = play(self.operations[step] for step in count())  # each operation as it comes
        self.plain = _tokens(subject.dtype, tokens)
        arrays = [from_numpy(subject.backend, x) for x in self.plain.values()]
        most = {"max_requests": REQUESTS, "max_tokens": REQUESTS * tokens}
        facts = {name: most.get(name) or fact([], *arrays) for name, fact in FACTS.items() if name in taken}
        cache = subject.cache(**{**facts, **subject.keywords, **self.choices})
        self.session = Session(cache, *arrays, windowed=self.window is not None)

    @property
    def states(self) -> dict[int, str]:
        """Where each request is that has not finished."""
        return {} if self.moment is None else self.moment.states

    @property
    def left(self) -> int:
        """How many tokens its operations may still bring."""
        return self.tokens - count_tokens(self.operations)

    def do(self, operation: Operation) -> None:
        """One operation, then the outputs of all resident requests.

        Raises:
            AnswerWrong: an output is wrong, or an earlier one is no longer what it was.
            PagesWrong: pages do not add up.
            Exception: whatever the cache raises.
        """
        self.operations.append(operation)
        self.moment = next(self._moments)
        try:
            answers = self.session.step(self.moment)
        except PageError as error:
            raise PagesWrong(str(error)) from None
        except AnswerChangedError as error:
            raise AnswerWrong(str(error)) from None
        self._check(self.moment, [to_numpy(self.subject.backend, answer) for answer in answers])

    def _check(self, moment: Moment, answers: Sequence[np.ndarray]) -> None:
        asked = moment.rows
        if not asked:
            return
        got, wanted = np.concatenate(answers), self._wanted([self._visible(row) for row in asked])
        ratio, agrees = compare(got, wanted)
        if not agrees.all():
            index = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
            row = asked[int(index[0])]
            raise AnswerWrong(
                f"request {row.request} reads {got[index]:.9g} with its token {len(row.tokens) - 1}, but should read "
                f"{wanted.value[index]:.9g} within {wanted.budget[index]:.3g}, after operation {moment.step}, {moment.operation}"
            )

    def _visible(self, row: Row) -> tuple[int, ...]:
        """The tokens that a query reads, its own last."""
        return row.tokens if self.window is None else row.tokens[-self.window :]

    def _wanted(self, reads: Sequence[tuple[int, ...]]) -> Expected:
        """What the oracle expects of queries that read some tokens, the last of which is their own: (rows, Hq, Dv)."""
        dtype = self.subject.dtype
        known = _KNOWN.setdefault((dtype, self.scale), {})
        new = [read for read in dict.fromkeys(reads) if read not in known]
        told: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        if new:
            tokens = 1 + max(max(read) for read in new)
            mask = np.zeros((len(new), tokens), dtype=bool)
            for index, read in enumerate(new):
                mask[index, list(read)] = True
            queries = self.plain["q"][[read[-1] for read in new]]
            q, k, v = (np.swapaxes(x, 0, 1)[None] for x in (queries, self.plain["k"][:tokens], self.plain["v"][:tokens]))
            given = {"q": q, "k": k, "v": v, "mask": mask, **({} if self.scale is None else {"scale": self.scale})}
            [bound] = budget(get_method("attention"), given, contract_for(dtype, dtype))
            made = expected(bound, dtype)
            told = {read: (made.value[0, :, index], made.budget[0, :, index]) for index, read in enumerate(new)}
            known |= {read: one for read, one in told.items() if len(read) <= MOST_ASKED}  # thousands of tokens are too many to keep
        values, budgets = zip(*(told.get(read) or known[read] for read in reads), strict=True)
        return Expected(np.stack(values), np.stack(budgets))

    @property
    def replay(self) -> str:
        """The line that runs the operations so far in a worker."""
        cache, dtype = self.subject.cache, self.subject.dtype
        given = [f"{name}={size}" for name, size in DIMS.items()]
        given.append(f"operations={join_operations(self.operations)}")
        given += [f"{name}={value}" for name, value in self.choices.items() if name != "block_size"]
        given += [f"{name}=normal({seed})" for seed, name in enumerate(self.plain)]
        given += [f"{name}={value}" for name, value in self.choices.items() if name == "block_size"]
        target = f"{cache.__module__}:{cache.__qualname__}"
        return f"attest replay 'target={target} backend={self.subject.backend} continuous_batching {dtype} {' '.join(given)}'"


@lru_cache
def _tokens(dtype: str, tokens: int) -> dict[str, np.ndarray]:
    """Queries, keys and values of so many tokens, always the same ones."""
    shapes = {"q": (DIMS["h"], DIMS["d"]), "k": (DIMS["g"], DIMS["d"]), "v": (DIMS["g"], DIMS["e"])}
    return {name: make_floats("normal", seed, 1.0, (tokens, *shapes[name]), FORMATS[dtype]) for seed, name in enumerate(shapes)}


def shortest(failed: Trial, error: Exception, seconds: float) -> tuple[Trial, Exception]:
    """The trial that no single step of `simpler_scripts`, and no default, makes simpler without its passing or failing otherwise.

    Args:
        failed: what failed.
        error: with what.
        seconds: limit, for caches that are slow.

    Returns:
        The trial and its own error, which is the given pair where nothing simpler fails alike.
    """
    until, tried = time.monotonic() + seconds, set()
    progress = True
    while progress:
        progress = False
        for operations, choices in _simpler(failed):
            key = (operations, str(choices))
            if key in tried or time.monotonic() > until:
                continue
            tried.add(key)
            trial = Trial(failed.subject, choices, failed.tokens)
            found = _failure(trial, operations)
            if type(found) is type(error):
                assert found is not None, "an error is never None"
                failed, error, progress = trial, found, True
                break
    return failed, error


def _simpler(trial: Trial) -> Iterator[tuple[str, dict[str, Any]]]:
    script, free = join_operations(trial.operations), [name for name in trial.choices if name not in trial.subject.keywords]
    for name in free:
        if name != "block_size":
            yield script, {**trial.choices, name: None}
    yield from ((simpler, trial.choices) for simpler in simpler_scripts(script))
    for name in free:
        for size in range(1, trial.choices[name]) if name in SIZES else ():
            yield from ((text, {**trial.choices, name: size}) for text in (script, *simpler_scripts(script)))


def _failure(trial: Trial, operations: str) -> Exception | None:
    try:
        for operation in parse_operations(operations):
            trial.do(operation)
    except Exception as error:  # whatever a cache raises is its failure
        return error
    return None
