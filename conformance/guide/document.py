"""The guide as a document: decisions over a grid of questions, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from conformance.guide.advise import TASKS, Advice, Question, advise
from conformance.guide.candidates import CANDIDATES, MEASURED_KEYS, QUALITIES, Sizes

__all__ = ["markdown", "rows_of"]

LENGTHS = (1024, 8192, 65536, 1 << 20)
MEMORIES = (None, 16 * 2**30, 2**30)
COMMAND = "attest guide --markdown docs/guide.md"


def rows_of(advice: Sequence[Advice]) -> list[dict[str, Any]]:
    """A table of what is said of every candidate."""
    timed = any(one.seconds is not None for one in advice)
    return [
        {
            "choice": one.candidate.name, "": "fits" if one.fits else "no", "cost": one.cost, "MiB": one.bytes / 2**20,
            "error": one.error, "mistakes": one.effort, **({"ms": None if one.seconds is None else one.seconds * 1e3} if timed else {}),
            "why": one.why,
        }
        for one in advice
    ]  # fmt: skip


def markdown(sizes: Sizes, measurements: Mapping[str, Mapping[int, float]] | None = None, source: str = "") -> str:
    """The page.

    Args:
        sizes: of the model; lengths are those of the grid.
        measurements: seconds of calls, where there are some.
        source: of them, in words.
    """
    model = f"{sizes.heads} heads of {sizes.width}, {sizes.layers} layers, {sizes.itemsize} bytes a number"
    lines = [HEAD.format(command=COMMAND, model=model, source=source or "formulas", keys=MEASURED_KEYS)]
    for task in TASKS:
        lines += ["", f"## {task.capitalize()}", "", NOTES[task], ""]
        lines += [f"| tokens | memory | {' | '.join(WORDS[quality] for quality in QUALITIES)} |", "|---:|---|---|---|---|---|"]
        lines += [line for length in LENGTHS for line in _decisions(replace(sizes, length=length), task, measurements)]
    lines += ["", "## What is traded", "", TRADE.format(length=8192), ""]
    lines += ["| choice | quality | cost | MiB to train | MiB of cache | error | known mistakes | for it | against it |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---|---|"]
    own = {task: {one.candidate.name: one for one in advise(_widest(sizes, task), measurements)} for task in TASKS}
    for candidate in CANDIDATES:
        train, decode = own["train"][candidate.name], own["decode"][candidate.name]
        error = "" if train.error is None else f"{train.error:.2g}"
        numbers = f"{train.cost:.3g} | {train.bytes / 2**20:.4g} | {decode.bytes / 2**20:.4g} | {error} | {train.effort}"
        lines.append(f"| {candidate.name} | {candidate.quality} | {numbers} | {candidate.reason} | {candidate.against} |")
    return "\n".join(lines)


def _decisions(sizes: Sizes, task: str, measurements: Mapping[str, Mapping[int, float]] | None) -> list[str]:
    """A line for every amount of memory that changes a decision."""
    lines: list[str] = []
    before: list[str] = []
    for memory in MEMORIES:
        cells = [_best(Question(sizes, task, quality, memory), measurements) for quality in QUALITIES]
        if cells != before:
            lines.append(f"| {sizes.length} | {'any' if memory is None else f'at most {memory / 2**30:g} GiB'} | {' | '.join(cells)} |")
        before = cells
    return lines


def _widest(sizes: Sizes, task: str) -> Question:
    return Question(replace(sizes, length=8192), task, QUALITIES[-1])


def _best(question: Question, measurements: Mapping[str, Mapping[int, float]] | None) -> str:
    first = advise(question, measurements)[0]
    return first.candidate.name if first.fits else "nothing"


WORDS = {
    "exact": "numbers of softmax attention", "close": "something near", "recall": "trained with it, any token within reach",
    "trained": "trained with it",
}  # fmt: skip
NOTES = {
    "train": "The cheapest that fits; a matrix of weights is kept by every layer for the backward pass.",
    "prefill": "The cheapest that fits; one layer at a time.",
    "decode": "The one that reads fewest bytes a token: its cache or state, of all layers, of one request.",
}
HEAD = """\
# Which attention?

Written by `{command}`: {model}. `attest guide --length 32768 --task decode --quality trained --memory 4096` answers one question,
with every choice and the reason for or against it.

Costs are from {source}: multiplications of a query, or bytes that are read for a token. `attest bench --json FILE` measures times,
and `--measured FILE` lets them decide where all choices were measured at a length within a factor of two. The error is measured by the
oracle against softmax attention on {keys} standard normal keys, where every key matters as much as any other: the hardest data for
whatever leaves some out, and not those of a trained model. Effort is how many mistakes attest knows that an implementation can make."""
TRADE = """\
At {length} tokens. Cost is that of a query over standard attention's; the error of what has other inputs than softmax attention, or fewer
heads, is blank."""
