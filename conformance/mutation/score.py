"""The mutation score: on how many cases of a hunt each mutant of a program is told from the program."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from conformance.cases.case import Case
from conformance.cases.shapes import stages
from conformance.cases.strategies import random_case
from conformance.hunting.hunt import Effort
from conformance.judge import Judge, compare
from conformance.mutation.programs import Function, Mutant, Program
from conformance.probes import probe_cases
from conformance.registry import Implementation
from oracle.readings import Expected, expected

__all__ = ["MutationReport", "Outcome", "drawn_cases", "mutation_score"]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        mutant: it.
        case: index of the case on which it was told from the program; None if it survived them all.
        how: the name of an exception, shape, dtype or value; "" for a survivor.
    """

    mutant: Mutant
    case: int | None = None
    how: str = ""


@dataclass(frozen=True)
class MutationReport:
    """The mutants of a program after a hunt's cases.

    Attributes:
        program: its name.
        outcomes: one a mutant.
        cases: how many cases were drawn; fewer than asked for when the time was up.
        seconds: that it took.
    """

    program: str
    outcomes: tuple[Outcome, ...]
    cases: int
    seconds: float

    @property
    def survivors(self) -> tuple[Mutant, ...]:
        """Mutants that no case told from the program."""
        return tuple(outcome.mutant for outcome in self.outcomes if outcome.case is None)

    @property
    def score(self) -> float:
        """The share of mutants that were killed."""
        return 1 - len(self.survivors) / max(len(self.outcomes), 1)


def mutation_score(
    program: Program, *, effort: Effort | None = None, mutants: Sequence[Mutant] | None = None, dtype: str = "float32"
) -> MutationReport:
    """Run the mutants of a program on the cases that a hunt would draw for it, each until the judge tells it from the program.

    Args:
        program: what is mutated; it must itself be right.
        effort: number of cases, seed and limit of time; 500 cases by default, without a limit.
        mutants: which of them; all by default.
        dtype: of the arguments. A specification computes in it, so in 16 bits only programs with a dtype of their own are right.

    Raises:
        AssertionError: the program itself is wrong on a case, so that its mutants cannot be judged.
    """
    effort = effort or Effort(seconds=np.inf)
    started = time.monotonic()
    living = list(program.mutants() if mutants is None else mutants)
    outcomes = {mutant.name: Outcome(mutant) for mutant in living}
    judge, number = Judge(program.implementation, dtype), 0
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(all="ignore"):
        for case in drawn_cases(program.implementation, dtype, effort):
            if not living or time.monotonic() > started + effort.seconds:
                break
            arguments, wanted = _prepared(judge, case)
            own = _told_apart(program.original, arguments, wanted)
            assert not own, f"the program {program.name} itself differs ({own}) [{case}]"
            for mutant in living:
                if how := _told_apart(mutant.function, arguments, wanted):
                    outcomes[mutant.name] = Outcome(mutant, number, how)
            living = [mutant for mutant in living if outcomes[mutant.name].case is None]
            number += 1
    return MutationReport(program.name, tuple(outcomes.values()), number, time.monotonic() - started)


def drawn_cases(implementation: Implementation, dtype: str, effort: Effort) -> Iterator[Case]:
    """The cases of a hunt, up to those that invariants judge and those that it aims: the probes, and the random ones."""
    yield from islice(probe_cases(implementation, dtype), effort.examples)
    rng = Random(f"{effort.seed} {implementation.method}")
    for stage in stages(dtype):
        for _ in range(round(stage.share * effort.examples)):
            yield random_case(rng, implementation, dtype, stage)


def _prepared(judge: Judge, case: Case) -> tuple[dict[str, Any], list[tuple[str, Expected]]]:
    """Arguments that nobody can write to; and of each output its dtype and what the oracle expects."""
    meaning = judge.implementation.meaning
    made, plain = case.arguments(meaning), case.without_garbage()
    bounds = judge.expect(case, made if plain is case else plain.arguments(meaning))
    for value in made.values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    formats = [case.storage(spec) for spec in case.specification.signature.outputs]
    wanted = [(form.name, expected(bound, form)) for bound, form in zip(bounds, formats, strict=True)]
    return {**made, **meaning, **case.tunables}, wanted


def _told_apart(function: Function, arguments: Mapping[str, Any], wanted: Sequence[tuple[str, Expected]]) -> str:
    """How a call differs from what is expected; "" if it does not."""
    try:
        outputs = function(**arguments)
    except Exception as error:
        return type(error).__name__
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if len(outputs) != len(wanted):
        return "shape"
    for got, (dtype, want) in zip(outputs, wanted, strict=True):
        if np.shape(got) != want.value.shape:
            return "shape"
        if str(getattr(got, "dtype", "")) != dtype:
            return "dtype"
        if not compare(got, want)[1].all():
            return "value"
    return ""
