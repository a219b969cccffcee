"""What holds for the cases of every method: they can be written and read, fit their method, and obey its domains."""

from itertools import chain
from random import Random

import numpy as np
import pytest

from conformance.adequacy import Adequacy, suspects
from conformance.cases import parse_case
from conformance.cases.lines import CaseError
from conformance.cases.options import PATTERNS
from conformance.cases.shapes import STAGES, stages
from conformance.cases.strategies import random_case
from conformance.diagnosis.neighbours import neighbours
from conformance.diagnosis.shrink import simpler
from conformance.hunting.hunt import Hunt
from conformance.hunting.search import Effort
from conformance.invariants import DENSE, MERGE
from conformance.isolation.sandbox import InProcess
from conformance.judge import Judgement
from conformance.probes import probe_cases
from conformance.registry import Implementation, usual_tunables
from oracle import METHODS
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

# Mistakes of a precision that float32 does not have, and of rows that some methods never have, show in other dtypes and methods.
SHOWN = 0.85

KERNELS = "tests/conformance/kernels.py"


def anything_of(method):
    """Takes every option; of the tunables those by which processes share the work, on which mistakes depend."""
    shared = usual_tunables(("world_size", "zigzag") if METHODS[method].sharded else ())
    return Implementation("any", method, "numpy", "any:any", options=METHODS[method].keywords, tunables=shared)


def drawn(method, count):
    rng = Random(f"cases of {method}")
    return [random_case(rng, anything_of(method), "float32", STAGES[index % 2]) for index in range(count)]


@pytest.mark.parametrize("method", METHODS)
def test_a_drawn_case_fits_its_method_and_reads_back_from_its_line(method):
    for case in drawn(method, 80):
        assert parse_case(str(case)) == case
        assert case.consistent
        assert METHODS[method].check(case.arguments()) == dict(case.dims)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cases_of_every_stage_can_be_drawn(method, dtype):
    rng = Random(f"stages of {method}")
    for stage in stages(dtype):
        for _ in range(150):
            assert random_case(rng, anything_of(method), dtype, stage).method == method


@pytest.mark.parametrize("method", METHODS)
def test_simpler_cases_and_neighbours_fit_too(method):
    for case in drawn(method, 6):
        for other in (*[one.settled() for one in simpler(case)][:60], *list(neighbours(case, anything_of(method)))[:60]):
            if other.consistent:
                METHODS[method].check(other.arguments())


@pytest.mark.parametrize("method", METHODS)
def test_every_option_and_every_value_of_a_choice_is_drawn(method):
    cases = drawn(method, 200)
    for option in METHODS[method].keywords:
        assert any(option in {*case.options, *case.arrays} for case in cases), option
    for option, kind in METHODS[method].options.items():
        if kind == "flag":
            assert any(case.options.get(option) is (METHODS[method].default(option) is not True) for case in cases), option
        if isinstance(kind, tuple):
            assert {case.options[option] for case in cases if option in case.options} == set(kind)


@pytest.mark.parametrize("method", METHODS)
def test_probes_fit_their_method(method):
    for case in probe_cases(anything_of(method), "float32"):
        METHODS[method].check(case.arguments())


@pytest.mark.parametrize("method", [method for method in METHODS if method not in DENSE + MERGE])
def test_the_mistakes_that_meet_their_occasion_are_exposed_by_what_is_drawn(method):
    implementation, rng = anything_of(method), Random(f"mistakes in {method}")
    adequacy = Adequacy(implementation)
    random_cases = (random_case(rng, implementation, "float32", STAGES[index % 2]) for index in range(300))
    for count, case in enumerate(chain(probe_cases(implementation, "float32"), random_cases)):
        bounded = budget(METHODS[method], case.without_garbage().arguments(), CONTRACTS["float32"])
        wanted = tuple(expected(bound, "float32") for bound in bounded)
        adequacy.learn(Judgement(case, None, wanted=wanted))
        if count > 100 and not adequacy.left and len(adequacy.ruled_out) >= SHOWN * len(suspects(method)):
            break
    assert adequacy.left == []
    assert len(adequacy.ruled_out) >= SHOWN * len(suspects(method))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("pattern=banded:2", "should be one of dilated:N, band:N"),
        ("pattern=band", "N >= 1"),
        ("pattern=band:0", "N >= 1"),
    ],
)
def test_a_pattern_that_is_none_is_refused(part, words):
    with pytest.raises(CaseError, match=words):
        parse_case(f"pattern_attention float32 b=1 h=1 g=1 l=2 s=2 d=1 e=1 {part} q=normal(0) k=normal(0) v=normal(0)")


def test_patterns_take_integers_arrays_and_tensors_alike():
    import torch

    from conformance.cases.options import as_argument

    i, j = np.arange(9)[:, None], np.arange(7)[None, :]
    for name in PATTERNS:
        pattern = as_argument("pattern", f"{name}:3")
        want = np.array([[bool(pattern(int(a), int(b))) for b in j[0]] for a in i[:, 0]])
        np.testing.assert_array_equal(pattern(i, j), want)
        np.testing.assert_array_equal(pattern(torch.from_numpy(i), torch.from_numpy(j)).numpy(), want)


@pytest.mark.parametrize(("function", "restricted"), [("strided_one_head", True), ("strided_grouped", False)])
def test_an_implementation_may_refuse_grouped_heads_and_the_certificate_says_so(function, restricted):
    with InProcess() as sandbox:
        [implementation] = sandbox.load(f"{KERNELS}:{function}", method="strided_attention", backend="numpy")
        result = Hunt(implementation, "float32", sandbox, Effort(examples=60)).run()
    assert result.verdict in ("certified", "inconclusive"), result.findings
    assert ("h == g" in result.implementation.restrictions) == restricted
    if restricted:
        assert "refuses grouped heads" in result.implementation.restrictions["h == g"]


def test_a_wrong_answer_to_grouped_heads_is_no_refusal():
    with InProcess() as sandbox:
        [implementation] = sandbox.load(f"{KERNELS}:strided_first_head", method="strided_attention", backend="numpy")
        assert Hunt(implementation, "float32", sandbox, Effort(examples=60, diagnose=False)).run().verdict == "refuted"


@pytest.mark.parametrize(
    ("function", "method", "explained", "trigger"),
    [
        ("strided_first_head", "strided_attention", "heads-first-kv-head", "only when g > 1"),
        ("local_global_of_first_token", "local_global_attention", "first-global-token-only", ""),
        ("bigbird_last_block_too", "bigbird_attention", "last-block-global-too", ""),
        ("block_sparse_maximum_from_zero", "block_sparse_attention", "maximum-starts-at-zero", "only when smallest maximum of a row"),
    ],
)
def test_a_wrong_sparse_kernel_is_explained_like_a_dense_one(function, method, explained, trigger):
    with InProcess() as sandbox:
        [implementation] = sandbox.load(f"{KERNELS}:{function}", method=method, backend="numpy")
        result = Hunt(implementation, "float32", sandbox, Effort(examples=200)).run()
    [(_, named)] = result.findings
    assert explained in named
    assert trigger in str(result.trigger and result.trigger.text)
