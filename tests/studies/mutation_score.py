"""Study: how many mutants the cases of a default hunt kill, which survive, and which features the cases join.

    python tests/studies/mutation_score.py [--seeds 0 1 2] [--write]

Prints the tables and, with --write, puts them into docs/mutation.md. Exits with 1 when a survivor is not explained in
survivors.toml, or an explained one was killed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from conformance.cases.features import SHAPES, features
from conformance.hunting.hunt import Effort
from conformance.mutation import MutationReport, Program, mutation_score
from conformance.mutation.score import drawn_cases
from oracle.conditions import condition_names, holds
from tests.studies.mutated import PROGRAMS, SPECIFICATIONS, elsewhere, explanations

DOCUMENT = Path(__file__).parents[2] / "docs" / "mutation.md"
BEGIN, END = "<!-- made by tests/studies/mutation_score.py -->\n", "<!-- end -->\n"


@dataclass
class Survey:
    """The mutants of a program in float32 with default conventions, and those of the survivors that nothing else kills."""

    program: Program
    report: MutationReport
    survivors: list[str]


def survey(program: Program, seed: int) -> Survey:
    report = mutation_score(program, effort=Effort(seed=seed, seconds=np.inf))
    return Survey(program, report, [mutant.name for mutant in elsewhere(program, report.survivors)])


def table(head: list[str], rows: list[list[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def cases_to_kill(reports: list[MutationReport], operator: str = "") -> list[object]:
    """Median, 90th percentile and maximum."""
    cases = [
        outcome.case + 1
        for report in reports
        for outcome in report.outcomes
        if outcome.case is not None and operator in ("", outcome.mutant.operator)
    ]
    return [int(np.percentile(cases, share)) for share in (50, 90, 100)] if cases else ["", "", ""]


def programs_table(surveys: list[Survey]) -> str:
    rows: list[list[object]] = []
    for one in surveys:
        mutants, here, survivors = len(one.report.outcomes), len(one.report.survivors), len(one.survivors)
        rows.append([one.program.name, mutants, mutants - here, here - survivors, survivors, *cases_to_kill([one.report])])
    head = ["program", "mutants", "killed", "killed elsewhere", "survive", "cases, median", "p90", "max"]
    return table(head, rows)


def operators_table(surveys: list[Survey]) -> str:
    made, raised, killed, left = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for one in surveys:
        for outcome in one.report.outcomes:
            operator = outcome.mutant.operator
            made[operator] += 1
            killed[operator] += outcome.case is not None
            raised[operator] += outcome.how not in ("", "value")
            left[operator] += outcome.mutant.name in one.survivors
    reports = [one.report for one in surveys]
    rows: list[list[object]] = [
        [name, made[name], f"{killed[name] / made[name]:.1%}", raised[name], left[name], *cases_to_kill(reports, name)] for name in made
    ]
    head = ["operator", "mutants", "killed", "of them by an exception, shape or dtype", "survive", "cases, median", "p90", "max"]
    return table(head, rows)


def survivors_list(surveys: list[Survey]) -> str:
    reasons: dict[str, set[str]] = {}
    for one in surveys:
        why = explanations(one.program)
        for name in one.survivors:
            reasons.setdefault(why.get(name, "NOT EXPLAINED"), set()).add(name)
    lines = [f"- **{reason}**" + "".join(f"\n  - `{name}`" for name in sorted(names)) for reason, names in sorted(reasons.items())]
    return "\n".join(lines) + "\n"


def chance(surveys: list[Survey], seed: int) -> str:
    """What another seed misses of that which the first one kills."""
    missed = []
    for one in surveys:
        known = {mutant.name for mutant in one.report.survivors}
        report = mutation_score(one.program, effort=Effort(seed=seed, seconds=np.inf))
        missed += [f"`{mutant.name}` ({one.program.name})" for mutant in report.survivors if mutant.name not in known]
    return f"- Seed {seed} misses {len(missed)} mutants that the first seed kills{': ' * bool(missed)}{', '.join(missed)}.\n"


def contradict(one: str, other: str) -> bool:
    """Whether no dimensions have both features."""
    conditions = {**SHAPES, "no keys": "s == 0"}
    if one not in conditions or other not in conditions:
        return False
    letters = sorted(condition_names(conditions[one]) | condition_names(conditions[other]))
    sizes = (0, 1, 2, 3, 16, 17, 80, 100, 528, 600)
    return not any(
        holds(conditions[one], values) and holds(conditions[other], values)
        for values in (dict(zip(letters, chosen, strict=True)) for chosen in product(sizes, repeat=len(letters)))
    )


def coverage(program: Program, seed: int) -> str:
    """How many of a hunt's cases have each feature, and each two together."""
    counts: Counter[str | frozenset[str]] = Counter()
    for case in drawn_cases(program.implementation, "float32", Effort(seed=seed)):
        found = features(case)
        counts.update(found)
        counts.update(map(frozenset, combinations(found, 2)))
    names = [name for name in counts if isinstance(name, str)]
    names.sort(key=lambda name: -counts[name])
    width = max(map(len, names))
    lines = [" " * (width + 4) + "".join(f"{column:5}" for column in range(1, len(names) + 1))]
    for row, name in enumerate(names, 1):
        pairs = [counts[frozenset((name, other))] for other in names[: row - 1]]
        lines.append(f"{row:2}  {name:{width}}" + "".join(f"{count:5}" for count in [*pairs, counts[name]]))
    missing = [
        f"{one} x {other}" for one, other in combinations(names, 2) if not counts[frozenset((one, other))] and not contradict(one, other)
    ]
    rare = [count for pair, count in counts.items() if isinstance(pair, frozenset)]
    return (
        "```text\n" + "\n".join(lines) + "\n```\n\n"
        f"{len(rare)} pairs occur, {sum(count < 5 for count in rare)} of them in fewer than 5 cases. "
        f"Pairs that are possible and do not occur: {', '.join(missing) or 'none'}.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    surveys = [survey(program, arguments.seeds[0]) for program in PROGRAMS]
    text = "### By program\n\n" + programs_table(surveys) + "\n### By operator\n\n" + operators_table(surveys)
    text += "\n### Chance\n\n" + "".join(chance(surveys, seed) for seed in arguments.seeds[1:])
    text += "\n### Survivors, and why they mean the same\n\n" + survivors_list(surveys)
    for program in SPECIFICATIONS:
        text += f"\n### Features of the cases of {program.implementation.method}\n\n" + coverage(program, arguments.seeds[0])
    sys.stdout.write(text)
    unexplained = {(one.program.name, name) for one in surveys for name in one.survivors if name not in explanations(one.program)}
    killed = {
        (one.program.name, outcome.mutant.name)
        for one in surveys
        for outcome in one.report.outcomes
        if outcome.mutant.name in explanations(one.program) and outcome.mutant.name not in one.survivors
    }
    for title, found in (("survives without an explanation", unexplained), ("is explained, but was killed", killed)):
        for program_name, name in sorted(found):
            sys.stdout.write(f"{title}: {name} [{program_name}]\n")
    if arguments.write:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        DOCUMENT.write_text(before + BEGIN + text + END + rest.partition(END)[2])
    return int(bool(unexplained or killed))


if __name__ == "__main__":
    raise SystemExit(main())
