"""Mutants: the operators do what they say, every change is judged as a hunt judges, and no survivor goes unexplained."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations, islice
from textwrap import dedent
from types import SimpleNamespace

import numpy as np
import pytest

from conformance.cases.features import features
from conformance.cases.lines import parse_case
from conformance.hunting.hunt import Effort, Hunt
from conformance.judge import Finding, Judgement
from conformance.mutation import OPERATORS, Program, mutation_score, specification
from conformance.mutation.places import places
from conformance.mutation.score import drawn_cases
from conformance.registry import Implementation
from oracle import METHODS, attention_with_lse
from tests.studies.mutated import KERNELS, PROGRAMS, SPECIFICATIONS, elsewhere, explanations

# Every so many-th mutant of a program is hunted here; the study hunts all.
SAMPLE = 41


def changed(source: str, operator: str, roles: tuple[tuple[str, ...], ...] = ()) -> list[str]:
    """What an operator makes of the body of a function of a, b and c."""
    tree = ast.parse("def function(a, b, c):\n" + "".join(f"    {line}\n" for line in dedent(source).splitlines()))
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    results = []
    for place in places(function, roles):
        for change in OPERATORS[operator](place):
            with place.put(change):
                results.append(dedent("\n".join(ast.unparse(function).splitlines()[1:])))
    assert dedent("\n".join(ast.unparse(function).splitlines()[1:])) == ast.unparse(ast.parse(dedent(source))), "was changed back"
    return results


@pytest.mark.parametrize(
    ("operator", "source", "expected"),
    [
        ("comparison", "return a <= b", ["return a < b", "return a >= b"]),
        ("comparison", "return a is None", ["return a is not None"]),
        ("operation", "return a - b", ["return a + b"]),
        ("operation", "a &= b", ["a |= b"]),
        ("swap", "return a / b", ["return b / a"]),
        ("swap", "return a @ b", ["return b @ a"]),
        ("swap", "return a + b", []),
        ("swap", "return np.where(a, b, c)", ["return np.where(b, a, c)", "return np.where(a, c, b)"]),
        ("swap", "return np.maximum(a, b)", []),
        ("swap", "return a[:, None]", ["return a[None, :]"]),
        ("drop operation", "return a * b", ["return a", "return b"]),
        ("drop operation", "return a and b and c", ["return b and c", "return a and c", "return a and b"]),
        ("drop operation", "return np.exp(a)", ["return a"]),
        ("drop operation", "return a.copy()", ["return a"]),
        ("drop operation", "return -a", ["return a"]),
        ("drop operation", "return a[0]", ["return a"]),
        ("duplicate operation", "return a - b", ["return a - b - b"]),
        ("duplicate operation", "return np.tanh(a)", ["return np.tanh(np.tanh(a))"]),
        ("duplicate operation", "return a.any()", []),
        ("constant", "return a[3]", ["return a[4]", "return a[2]"]),
        ("constant", "return a + 0.0", ["return a + 1.0", "return a + -1.0"]),
        ("constant", "return True", ["return False"]),
        ("constant", "return -np.inf", ["return -0.0", "return -10000.0"]),
        ("counterpart", "return a.max()", ["return a.min()"]),
        ("drop keyword", "return np.sum(a, axis=-1)", ["return np.sum(a)"]),
        ("condition", "return a if b else c", ["return a if True else c", "return a if False else c", "return a if not b else c"]),
        ("bound", "return a[b:]", ["return a[:]", "return a[b + 1:]", "return a[b - 1:]"]),
        ("bound", "return a < b", ["return a < b + 1", "return a < b - 1"]),
        ("bound", "return range(a)", ["return range(a + 1)", "return range(a - 1)"]),
        ("drop statement", "a = b\nd = a\nreturn d", ["pass\nd = a\nreturn d"]),
        ("drop statement", "a[b] = c", ["pass"]),
        ("duplicate statement", "a += b", ["a += b\na += b"]),
        ("duplicate statement", "a = b", []),
        ("reorder", "b = a + c\na = c", ["a = c\nb = a + c"]),
        ("reorder", "b = c\na = c", []),
        ("loop", "for i in a:\n    b += i", [f"for i in list(a){part}:\n    b += i" for part in ("[1:]", "[:-1]", "[:1]")]),
    ],
)
def test_an_operator_changes_what_it_says(operator, source, expected):
    assert changed(source, operator) == expected


def test_a_name_becomes_another_of_its_role_that_has_a_value():
    assert changed("return a.shape", "role", (("a", "b", "later"),)) == ["return b.shape"]
    assert changed("return a.lowest", "role", (("lowest", "highest"),)) == ["return a.highest"]


@pytest.mark.parametrize(("index", "expected"), [(0, [1, 1, 1]), (1, [1, 1, 4])])
def test_a_stale_variable_keeps_an_earlier_round(index, expected):
    source = changed("for i in a:\n    square = i * i\n    b.append(square)\nreturn b", "stale")[index]
    namespace = {}
    exec("def function(a, b, c):\n" + "".join(f"    {line}\n" for line in source.splitlines()), namespace)
    assert namespace["function"]([1, 2, 3], [], None) == expected


@cache
def mutants(program):
    return tuple(program.mutants())


def test_every_operator_makes_mutants():
    made = {mutant.operator for program in PROGRAMS for mutant in mutants(program)}
    assert made == {*OPERATORS, "ignore option", "ignore option on occasion", "ignore axis", "ignore axis on occasion"}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_name_is_that_of_one_mutant(program):
    assert [name for name, count in Counter(mutant.name for mutant in mutants(program)).items() if count > 1] == []


def test_every_explanation_is_of_a_mutant():
    explained = {name for program in PROGRAMS for name in explanations(program)}
    assert explained <= {mutant.name for program in PROGRAMS for mutant in mutants(program)}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_mutant_is_killed_or_explained(program):
    why = explanations(program)
    sample = [mutant for mutant in mutants(program)[::SAMPLE] if mutant.name not in why]
    assert len(sample) >= 4
    assert elsewhere(program, mutation_score(program, mutants=sample).survivors) == ()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_what_is_explained_is_not_killed(program):
    explained = [mutant for mutant in mutants(program) if mutant.name in explanations(program)]
    report = mutation_score(program, mutants=explained, effort=Effort(examples=40))
    assert report.score == 0
    assert report.cases >= 30


def test_an_option_is_ignored_on_its_occasion_only():
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((1, 2, 5, 4)).astype(np.float32) for name in "qkv"}
    [mutant] = [mutant for mutant in mutants(SPECIFICATIONS[0]) if mutant.name == "ignore window when softcap is given"]
    for softcap in (None, 2.0):
        window = (1, 0) if softcap is None else None
        wanted = attention_with_lse(**arrays, window=window, softcap=softcap)
        for got, want in zip(mutant.function(**arrays, window=(1, 0), softcap=softcap), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["attention", "attention_with_lse"])
def test_every_option_is_ignored_when_another_is_given(method):
    options = METHODS[method].keywords
    names = {mutant.name for mutant in specification(method, ()).mutants({})}
    assert {f"ignore {one} when {other} is given" for one in options for other in options if one != other} <= names


@pytest.mark.parametrize("program", [SPECIFICATIONS[0], KERNELS[0]], ids=lambda program: program.name)
def test_the_cases_are_those_of_a_hunt(program):
    sandbox, effort, drawn = SimpleNamespace(arena=None, device="cpu", isolated=False), Effort(examples=160, seed=3), []
    search = Hunt(program.implementation, "float32", sandbox, effort).search

    def look(case):
        if search.stage in {"probes", *(stage.name for stage in search.random_stages)}:
            drawn.append(case)
        return Judgement(case, Finding("stop", case, "enough") if len(drawn) == 100 else None)

    search.run(look)
    assert drawn == list(islice(drawn_cases(program.implementation, "float32", effort), 100))


MODULE = """
import numpy as np
def right(q, k, v):
    count = 0
    while count < 3:
        count += 1
    logits = q @ k.swapaxes(-1, -2) * np.float32(q.shape[-1] ** -0.5)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    out = np.empty((*logits.shape[:-1], v.shape[-1]), q.dtype)
    for rows in (np.s_[:, :, :5], np.s_[:, :, 5:]):
        out[rows] = (weights @ v / weights.sum(axis=-1, keepdims=True))[rows]
    return out
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_kernel.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    claim = Implementation("toy", "attention", "numpy", "", restrictions={"h == g and s > 0": "simple"})
    return Program("toy", ("toy_kernel",), "right", ("right",), claim)


def killed(program):
    return {outcome.mutant.name: outcome.how for outcome in mutation_score(program, effort=Effort(examples=40)).outcomes}


def test_a_mutant_is_killed_for_its_values_its_shape_and_its_exceptions(toy):
    how = killed(toy)
    assert how["right: weights @ v -> v @ weights"] == "ValueError"
    assert how["right: q @ k.swapaxes(-1, -2) -> k.swapaxes(-1, -2)"] == "shape"
    assert how["right: logits.max(axis=-1, keepdims=True) -> logits.min(axis=-1, keepdims=True)"] == "value"
    assert how["right: for (np.s_[:, :, :5], np.s_[:, :, 5:]) -> [:1]"] == "value", "memory that was not written is not right by chance"
    assert how["right: count < 3 -> count > 3"] == ""


def test_a_loop_without_end_is_killed(toy):
    assert killed(toy)["right: drop count += 1"] == "EndlessLoopError"


def test_a_program_that_is_wrong_itself_is_not_scored():
    program = replace(KERNELS[0], implementation=replace(KERNELS[0].implementation, conventions={"causal_alignment": "top-left"}))
    with pytest.raises(AssertionError, match="itself differs"):
        mutation_score(program, effort=Effort(examples=20))


def test_scoring_leaves_the_modules_alone():
    before = attention_with_lse.spec
    mutation_score(SPECIFICATIONS[0], mutants=mutants(SPECIFICATIONS[0])[:5], effort=Effort(examples=2))
    assert METHODS["attention_with_lse"].spec is before


@pytest.mark.parametrize("method", ["attention", "attention_with_lse"])
def test_every_pair_of_features_that_is_possible_occurs_in_a_hunt(method):
    found = [features(case) for case in drawn_cases(specification(method, ()).implementation, "float32", Effort())]
    together = {frozenset(pair) for names in found for pair in combinations(names, 2)}
    contradictions = (
        {"Lq < Lk", "Lq = Lk", "Lq > Lk"},
        {"one query", "Lq = Lk", "Lq > Lk"},
        {"no keys", "keys a multiple of 16", "keys no multiple of 16"},
        {"no keys", "more than 64 keys"},
        {"no keys", "more than 512 keys"},
        {"no keys", "Lq < Lk"},
        {"no keys", "one query"},
    )
    impossible = {frozenset(pair) for names in contradictions for pair in combinations(names, 2)}
    never = {frozenset(pair) for pair in combinations({name for names in found for name in names}, 2)} - together
    assert never == impossible


def test_features_are_those_of_the_case():
    case = parse_case(
        "attention float32 b=2 h=4 l=5 d=12 g=2 s=3 e=8 causal=True q=normal(0) k=normal(1)!garbage@strided v=normal(2) mask=full(0)[l,s]"
    )
    assert features(case) == [
        "causal", "mask", "several sequences", "several key/value heads", "grouped heads", "Lq > Lk", "keys no multiple of 16", "Dv != D",
        "D no multiple of 8", "rows without keys", "garbage in hidden keys", "a broadcast mask or bias", "a strided layout",
    ]  # fmt: skip
