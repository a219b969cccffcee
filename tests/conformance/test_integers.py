"""Integers as parts of cases: recipes fit their domains whatever the dimensions, and memory of others is poisoned."""

import itertools
from random import Random

import numpy as np
import pytest

from conformance.cases import ArrayRecipe, CaseError, parse_case
from conformance.cases.integers import INTEGER_RECIPES, plain_integers, recipes_of_integers
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.diagnosis.shrink import shrink, simpler
from conformance.hunting.hunt import Hunt
from conformance.hunting.search import Effort
from conformance.isolation.sandbox import InProcess
from conformance.judge import Finding
from conformance.registry import Implementation
from oracle import METHODS
from oracle.options import OptionError

KERNELS = "tests/conformance/serving_kernels.py"
LINES = {
    "paged_attention": "float32 b={b} h=1 d=2 num_blocks={n} block_size={p} g=1 e=2 max_blocks={m} q=normal(0) k_pages=normal(1) "
    "v_pages=normal(2) block_table={table} context_lens={contexts}",
    "varlen_attention": "float32 l={l} h=1 d=2 s={s} g=1 e=2 edges={edges} q=normal(0) k=normal(1) v=normal(2) cu_seqlens_q={first} "
    "cu_seqlens_k={second}",
    "append_to_pages": "float32 l={l} g=1 d=2 e=2 num_blocks={n} block_size={p} k=normal(0) v=normal(1) k_pages=normal(2) "
    "v_pages=normal(3) slots={slots}",
    "rotary_embedding": "float32 b=2 h=1 l={l} d=4 x=normal(0) positions={positions}[{rows},l]",
}


def case_of(method, **parts):
    return parse_case(f"{method} {LINES[method].format(**parts)}")


def anything_of(method):
    return Implementation("any", method, "numpy", "any:any", options=METHODS[method].keywords)


SIZES = list(itertools.product((0, 1, 3), (1, 2, 7), (1, 4), (0, 1, 5)))


@pytest.mark.parametrize("contexts", INTEGER_RECIPES["context"])
@pytest.mark.parametrize("table", INTEGER_RECIPES["block-table"])
def test_block_tables_and_contexts_fit_each_other(table, contexts):
    for seed, (b, n, p, m) in enumerate(SIZES):
        case = case_of("paged_attention", b=b, n=n, p=p, m=m, table=f"{table}({seed})", contexts=f"{contexts}({seed + 1})")
        METHODS["paged_attention"].check(case.arguments())
        assert parse_case(str(case)) == case


@pytest.mark.parametrize("recipe", INTEGER_RECIPES["cumulative"])
def test_cumulative_lengths_cover_their_tokens(recipe):
    for seed, (tokens, edges) in enumerate(itertools.product((0, 1, 2, 9, 40), (2, 3, 4, 9))):
        case = case_of("varlen_attention", l=tokens, s=9, edges=edges, first=f"{recipe}({seed})", second=f"{recipe}({seed + 1})")
        METHODS["varlen_attention"].check(case.arguments())


@pytest.mark.parametrize("recipe", INTEGER_RECIPES["slots"])
def test_slots_are_places_of_the_cache_each_once(recipe):
    for seed, (tokens, n, p) in enumerate(itertools.product((0, 1, 5, 40), (1, 3, 8), (1, 2, 5))):
        METHODS["append_to_pages"].check(case_of("append_to_pages", l=tokens, n=n, p=p, slots=f"{recipe}({seed})").arguments())


@pytest.mark.parametrize("recipe", INTEGER_RECIPES["position"])
def test_positions_are_such_that_float32_counts_them(recipe):
    for tokens, rows in itertools.product((0, 1, 9), ("1", "b")):
        case = case_of("rotary_embedding", l=tokens, rows=rows, positions=f"{recipe}(3)")
        METHODS["rotary_embedding"].check(case.arguments())
        assert case.arguments()["positions"].shape == (2 if rows == "b" else 1, tokens)


def test_what_is_drawn_reaches_the_edges_of_caches_and_sequences():
    rng, contexts, tables, empty = Random(0), set(), set(), set()
    for index in range(400):
        given = random_case(rng, anything_of("paged_attention"), "float32", STAGES[index % 2]).arguments()
        size, longest = given["k_pages"].shape[1], given["block_table"].shape[1] * given["k_pages"].shape[1]
        for name, value in {"0": 0, "1": 1, "p - 1": size - 1, "p": size, "p + 1": size + 1, "full": longest}.items():
            contexts |= {name} & ({name} if size > 2 and value in given["context_lens"] else set())
        used = [row[: -(-n // size)] for row, n in zip(given["block_table"], given["context_lens"], strict=True)]
        flat = np.concatenate([np.zeros(0, int), *used])
        tables |= {"repeated"} if len(np.unique(flat)) < len(flat) else set()
        tables |= {"unused"} if (given["block_table"] == -1).any() else set()
        tables |= {"stale"} if any((row[len(own) :] >= 0).any() for row, own in zip(given["block_table"], used, strict=True)) else set()
        tables |= {"foreign"} if len(np.unique(flat)) < len(given["k_pages"]) else set()
        tables |= {"out of order"} if any((np.diff(own) < 0).any() for own in used) else set()
    for _ in range(300):
        given = random_case(rng, anything_of("varlen_attention"), "float32", STAGES[0]).arguments()
        lengths = np.diff(given["cu_seqlens_q"])
        if len(lengths) > 2 and lengths.any():
            empty |= {"first"} if lengths[0] == 0 else set()
            empty |= {"last"} if lengths[-1] == 0 else set()
            empty |= {"between"} if (lengths[1:-1] == 0).any() else set()
            empty |= {"one long"} if (np.sort(lengths)[:-1] == 1).all() and lengths.max() > 1 else set()
    assert contexts == {"0", "1", "p - 1", "p", "p + 1", "full"}
    assert tables == {"repeated", "unused", "stale", "foreign", "out of order"}
    assert empty == {"first", "last", "between", "one long"}


def test_most_cases_of_caches_hold_nan_where_it_belongs_to_others_and_only_there():
    rng, poisoned = Random(1), 0
    method = METHODS["paged_attention"]
    for _ in range(200):
        case = random_case(rng, anything_of(method.name), "float32", STAGES[0])
        given, clean = case.arguments(), case.without_garbage().arguments()
        foreign, unread = method.foreign(given), method.unread(given)
        for name in ("k_pages", "v_pages"):
            nan, changed = np.isnan(given[name]), given[name] != clean[name]
            assert not (nan & ~foreign[name]).any()
            assert not (changed & ~unread[name]).any()
            poisoned += nan.any()
        np.testing.assert_array_equal(method(**given), method(**clean))
    assert poisoned > 100


def test_elements_outside_a_window_may_be_huge_and_are_never_nan():
    case = case_of("paged_attention", b=1, n=3, p=4, m=2, table="in_order(0)", contexts="full(0)")
    windowed = parse_case(str(case).replace("max_blocks=2", "max_blocks=2 window=(2,None)").replace("normal(2)", "normal(2)!nan"))
    values = windowed.arguments()["v_pages"].reshape(12, -1)
    assert np.isnan(values[8:]).all()  # the last block belongs to nobody
    assert (np.abs(values[:5]) > 1e20).all() and (np.abs(values[5:8]) < 10).all()


@pytest.mark.parametrize(("function", "verdict"), [("right", "certified"), ("leaks", "refuted"), ("hides_nan", "certified")])
def test_a_leak_of_what_belongs_to_others_is_a_finding(function, verdict):
    with InProcess() as sandbox:
        [implementation] = sandbox.load(f"{KERNELS}:{function}", method="paged_attention", backend="numpy")
        result = Hunt(implementation, "float32", sandbox, Effort(examples=150)).run()
    assert result.verdict == verdict, result.findings or result.not_ruled_out
    for finding, explained in result.findings:
        assert finding.kind == "nan"
        assert "foreign-values-times-zero-unused-as-block-0" in explained
        assert finding.reads.split(" [")[0] == "the only NaN among the arguments lies in k_pages, v_pages, where nothing may read"


def test_a_wrong_reader_of_the_cache_is_shrunk_and_explained():
    with InProcess() as sandbox:
        [implementation] = sandbox.load(f"{KERNELS}:one_too_many", method="paged_attention", backend="numpy")
        result = Hunt(implementation, "float32", sandbox, Effort(examples=150)).run()
    [(finding, explained)] = result.findings
    assert any(name.startswith("context-one-too-many") for name in explained)
    assert max(finding.case.dims.values()) <= 3


@pytest.mark.parametrize("method", LINES)
def test_integers_shrink_to_the_plainest(method):
    rng = Random(f"shrink {method}")
    for _ in range(4):
        start = random_case(rng, anything_of(method), "float32", STAGES[0])
        case = Finding("wrong-value", start, "wrong", ratio=1e6)
        small = shrink(case, lambda case: Finding("wrong-value", case, "wrong", ratio=1e6), lambda case: True, 3000, 30.0).case
        for name, domain in METHODS[method].domains.items():
            assert small.arrays[name].recipe in plain_integers(domain)[0]
            assert small.arrays[name].layout == "contiguous"


def test_every_simpler_case_of_integers_fits():
    rng = Random(2)
    for method in LINES:
        for _ in range(6):
            for candidate in (one.settled() for one in simpler(random_case(rng, anything_of(method), "float32", STAGES[0]))):
                if candidate.consistent:
                    METHODS[method].check(candidate.arguments())


def test_an_array_whose_elements_must_differ_is_never_repeated_in_memory():
    case = case_of("append_to_pages", l=4, n=3, p=2, slots="consecutive(0)@expanded_rows")
    with pytest.raises(OptionError, match="no place twice"):
        METHODS["append_to_pages"].check(case.arguments())
    METHODS["append_to_pages"].check(case.settled().arguments())
    assert case.settled().arrays["slots"] == ArrayRecipe("consecutive")


@pytest.mark.parametrize(
    ("name", "recipe"), [("table", "normal(0)"), ("table", "full(0)"), ("contexts", "in_order(0)"), ("contexts", "random(0)")]
)
def test_a_recipe_of_something_else_is_refused(name, recipe):
    parts = {"table": "in_order(0)", "contexts": "full(0)", name: recipe}
    with pytest.raises(CaseError, match="its recipe should be one of"):
        case_of("paged_attention", b=1, n=2, p=2, m=2, **parts)


def test_the_plainest_integers_come_first():
    for domain in ("context a b", "block-table a b c", "slots a b", "cumulative a", "position", "index a"):
        assert plain_integers(domain)[0][0] in recipes_of_integers(domain)
