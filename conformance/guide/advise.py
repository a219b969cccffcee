"""The decision: what fits, in the order of what it costs, and why the rest does not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.errors import UsageError
from conformance.guide.candidates import CANDIDATES, QUALITIES, Candidate, Sizes, effort, measured_error

__all__ = ["TASKS", "Advice", "Question", "advise", "read_measurements"]

# What is held at the same time: what all layers keep for the backward pass, what one layer needs, or the caches of all layers.
TASKS = ("train", "prefill", "decode")

# Why a candidate of some quality is not good enough.
LACKS = {
    "close": "it only comes near softmax attention",
    "recall": "a model has to be trained with it",
    "trained": "a model has to be trained with it",
    "fixed": "it keeps a fixed amount of the past, and cannot single out any token",
}

# Of a pair of measurements, times of lengths that differ by more say too little about each other.
NEAREST = 2.0


@dataclass(frozen=True)
class Question:
    """What is to be decided.

    Attributes:
        sizes: of the model and its context.
        task: one of `TASKS`.
        quality: the least that will do, of `QUALITIES`.
        memory: bytes that may be taken besides weights, queries, keys, values and outputs; None for no limit.
    """

    sizes: Sizes
    task: str = "prefill"
    quality: str = "exact"
    memory: float | None = None


@dataclass(frozen=True)
class Advice:
    """What is said of one candidate.

    Attributes:
        candidate: itself.
        fits: whether it can be taken.
        why: the reason for that, in words.
        cost: multiplications of a query of one head, over those of standard attention; while decoding bytes read, over those of its cache.
        bytes: that it takes in the task.
        error: against softmax attention; None where there is nothing to compare.
        effort: mistakes that are known.
        seconds, measured: of a call as measured, and of which implementation at which length; None and "" where none was.
    """

    candidate: Candidate
    fits: bool
    why: str
    cost: float
    bytes: float
    error: float | None
    effort: int
    seconds: float | None = None
    measured: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        named = {"name": self.candidate.name, "method": self.candidate.method, "quality": self.candidate.quality}
        facts = ("fits", "why", "cost", "bytes", "error", "effort", "seconds", "measured")
        return {**named, **{name: getattr(self, name) for name in facts}}


def advise(question: Question, measurements: Mapping[str, Mapping[int, float]] | None = None) -> list[Advice]:
    """Every candidate, those that fit first, the best first.

    Where all that fit were measured at one length near the question's, their times decide; else the cost by formula does. Of
    equal ones, the one of higher quality comes first, then the one with fewer bytes, then that with fewer mistakes to make.

    Args:
        question: to answer.
        measurements: seconds of a call by implementation and length, from `read_measurements`.

    Raises:
        UsageError: a size is below 1, or the task or quality is unknown.
    """
    _check(question)
    length = _common_length(question, measurements or {})
    found = [_advice(candidate, question, measurements or {}, length) for candidate in CANDIDATES]
    timed = length is not None and question.task != "decode"

    def order(one: Advice) -> tuple[Any, ...]:
        cost = one.seconds if timed and one.seconds is not None else one.cost
        return (not one.fits, cost, QUALITIES.index(one.candidate.quality), one.bytes, one.effort)

    return sorted(found, key=order)


def _check(question: Question) -> None:
    for name in ("length", "heads", "width", "layers", "itemsize"):
        if getattr(question.sizes, name) < 1:
            raise UsageError(f"{name}={getattr(question.sizes, name)}, but should be at least 1")
    for name, known in (("task", TASKS), ("quality", QUALITIES)):
        if getattr(question, name) not in known:
            raise UsageError(f"{name}={getattr(question, name)!r}, but should be one of {', '.join(known)}")
    if question.memory is not None and not question.memory > 0:
        raise UsageError(f"memory={question.memory / 2**20:g} MiB, but should be greater than 0")


def _advice(
    candidate: Candidate, question: Question, measurements: Mapping[str, Mapping[int, float]], length: int | None
) -> Advice:  # fmt: skip
    sizes, standard = question.sizes, CANDIDATES[0]
    taken = _taken(candidate, question)
    if question.task == "decode":
        cost = candidate.read(sizes) * candidate.cache(sizes) / standard.cache(sizes)
    else:
        cost = candidate.cost(sizes) / standard.cost(sizes)
    seconds, name = _seconds(candidate, measurements, length)
    fits, why = True, candidate.reason
    if QUALITIES.index(candidate.quality) > QUALITIES.index(question.quality):
        fits, why = False, LACKS[candidate.quality if question.quality != "recall" else "fixed"]
    elif question.task == "train" and not candidate.trains:
        fits, why = False, "it has no backward pass"
    elif question.memory is not None and taken > question.memory:
        fits, why = False, f"it takes {taken / 2**20:.4g} MiB of {question.memory / 2**20:.4g}"
    error = measured_error(candidate.name, sizes.length)
    return Advice(candidate, fits, why, cost, taken, error, effort(candidate), seconds, name)


def _taken(candidate: Candidate, question: Question) -> float:
    sizes = question.sizes
    if question.task == "decode":
        return candidate.cache(sizes) * sizes.layers
    # FlashAttention and recurrences recompute what they need for the backward pass; a matrix of weights is kept by every layer.
    kept = sizes.layers if question.task == "train" and candidate.held is CANDIDATES[0].held else 1
    return candidate.held(sizes) * kept * sizes.itemsize


def _seconds(
    candidate: Candidate, measurements: Mapping[str, Mapping[int, float]], length: int | None
) -> tuple[float | None, str]:  # fmt: skip
    if length is None:
        return None, ""
    own = [(measurements[name][length], name) for name in candidate.kernels if length in measurements.get(name, {})]
    return min(own, default=(None, ""))


def _common_length(question: Question, measurements: Mapping[str, Mapping[int, float]]) -> int | None:
    """The measured length nearest to the question's at which every candidate of its quality was measured; None where there is none."""
    wanted = [one for one in CANDIDATES if QUALITIES.index(one.quality) <= QUALITIES.index(question.quality)]
    lengths = {length for own in measurements.values() for length in own}
    near = [length for length in lengths if 1 / NEAREST <= length / question.sizes.length <= NEAREST]
    for length in sorted(near, key=lambda one: abs(one - question.sizes.length)):
        if all(_seconds(one, measurements, length)[0] is not None for one in wanted):
            return length
    return None


def read_measurements(path: str) -> dict[str, dict[int, float]]:
    """Seconds of a call by implementation and length, from a file of ``attest bench --json``.

    Raises:
        UsageError: the file cannot be read or is none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            rows: Sequence[Mapping[str, Any]] = json.load(file)["rows"]
        found: dict[str, dict[int, float]] = {}
        for row in rows:
            if row["seconds"] is not None:
                found.setdefault(row["name"], {})[int(row["length"])] = float(row["seconds"])
    except OSError as error:
        raise UsageError(f"measured file {path!r} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"measured file {path!r}, but should be what 'attest bench --json' writes") from None
    return found
