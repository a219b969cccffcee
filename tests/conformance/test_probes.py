"""Probes: their answers are known without the oracle, each refutes some wrong kernel, and a finding says what was read."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conformance.cases import parse_case
from conformance.cases.values import CODED_RECIPES
from conformance.diagnosis.diagnose import diagnose
from conformance.examine import Examiner
from conformance.isolation.sandbox import InProcess
from conformance.probes import probe_cases, reading
from conformance.registry import Implementation, block_sizes, split_counts
from oracle import METHODS
from oracle.dense import allowed_keys
from oracle.formats import FORMATS
from oracle.operations import rows
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

VIOLATIONS = Path(__file__).with_name("violations.py")
CORPUS = Path(__file__).parent.parent / "mutants" / "numpy_wrong"

# Together they fail every probe that does not need a tunable.
WRONG = (
    "ring_chunk_seen_twice.py", "packed_mask_row_stride.py", "window_left_one_short.py", "merge_in_base_two.py",
    "tail_rounded_to_vector_width.py", "uniform_average.py", "softcap_over_bias.py", "merge_of_one_returns_input.py",
    "two_pass_decode_head_index.py", "softcap_before_scale.py", "bias_of_first_head_in_group.py",
)  # fmt: skip


def taking_everything(method, **declared):
    return Implementation("x", method, "numpy", "x:y", options=METHODS[method].keywords, **declared)


def examiner_of(path, function, method="attention", dtype="float32"):
    sandbox = InProcess()
    [implementation] = sandbox.load(f"{path}:{function}", method=method, backend="numpy")
    return Examiner(implementation, dtype, sandbox)


def first_finding(kernel, *words):
    examiner = examiner_of(VIOLATIONS, kernel)
    judgements = (examiner.examine(case) for case in probe_cases(examiner.implementation, "float32") if all(w in str(case) for w in words))
    return next(judgement.finding for judgement in judgements if judgement.finding is not None)


def line_of(case):
    return str(replace(case, tunables={})).split(" ", 2)[2]


def test_every_probe_refutes_a_wrong_kernel_by_itself():
    refuting = set()
    with (CORPUS / "corpus.toml").open("rb") as file:
        entries = {entry["file"]: entry for entry in tomllib.load(file)["kernel"]}
    kernels = [(CORPUS / name, entries[name]["function"], entries[name]["method"]) for name in WRONG]
    for path, function, method in [*kernels, (VIOLATIONS, "hidden_keys_are_read", "attention")]:
        examiner = examiner_of(path, function, method)
        cases = probe_cases(examiner.implementation, "float32")
        refuting |= {line_of(case) for case in cases if examiner.examine(case).finding is not None}
    methods = [taking_everything(method) for method in ("attention", "merge_attention_states")]
    assert {line_of(case) for method in methods for case in probe_cases(method, "float32")} - refuting == set()


def test_every_probe_of_a_tunable_refutes_a_wrong_kernel_by_itself():
    examiner = examiner_of(VIOLATIONS, "loses_partial_tiles")
    plain = {line_of(case) for case in probe_cases(replace(examiner.implementation, tunables={}), "float32")}
    tuned = [case for case in probe_cases(examiner.implementation, "float32") if line_of(case) not in plain]
    assert len(tuned) >= 4
    assert {line_of(case) for case in tuned} == {line_of(case) for case in tuned if examiner.examine(case).finding is not None}


def test_probes_try_one_split_and_many_and_tiles_around_the_length():
    implementation = taking_everything("attention", tunables={"num_splits": split_counts, "block_k": block_sizes})
    tried = {(case.tunables["num_splits"], case.tunables["block_k"]) for case in probe_cases(implementation, "float32")}
    assert {1, 2, 7, 64} <= {splits for splits, _ in tried}
    assert {1, 16, 64} <= {block for _, block in tried}


@pytest.mark.parametrize("dtype", list(FORMATS))
@pytest.mark.parametrize("kernel", ["right", "right_with_lse", "right_merge"])
def test_a_right_kernel_passes_all_probes(kernel, dtype):
    method = {"right": "attention", "right_with_lse": "attention_with_lse"}.get(kernel, "merge_attention_states")
    examiner = examiner_of(VIOLATIONS, kernel, method, dtype)
    assert [examiner.examine(case).finding for case in probe_cases(examiner.implementation, dtype)].count(None) >= 5
    assert all(examiner.examine(case).finding is None for case in probe_cases(examiner.implementation, dtype))


def test_probes_are_few_and_always_the_same():
    implementation = taking_everything("attention", tunables={"block_q": block_sizes, "block_k": block_sizes})
    first, second = ([str(case) for case in probe_cases(implementation, "bfloat16")] for _ in range(2))
    assert first == second
    assert 30 <= len(set(first)) == len(first) <= 60


def test_probes_keep_to_options_and_restrictions():
    implementation = taking_everything("attention").declaring(restrictions={"h == g and not causal": "so it is"})
    cases = list(probe_cases(replace(implementation, options=("causal", "mask")), "float32"))
    assert cases
    assert all(set(case.arrays) | set(case.options) <= {"q", "k", "v", "mask"} and case.dims["h"] == case.dims["g"] for case in cases)


def visible(case):
    arguments = case.without_garbage().arguments()
    taken = {name: arguments[name] for name in ("mask", "causal", "window") if name in arguments}
    shape = tuple(case.dims[letter] for letter in "bhls")
    return arguments, np.broadcast_to(allowed_keys(case.dims["l"], case.dims["s"], **taken), shape)


def test_with_equal_logits_the_oracle_gives_the_mean_of_what_is_visible():
    cases = [case for case in probe_cases(taking_everything("attention"), "float32") if case.arrays["q"].recipe == "zeros"]
    assert len(cases) >= 10
    for case in cases:
        arguments, allowed = visible(case)
        v = np.repeat(arguments["v"].astype(np.float64), case.dims["h"] // case.dims["g"], axis=1)
        sinks = np.exp(arguments["sinks"].astype(np.float64))[:, None, None] if "sinks" in arguments else 0.0
        counts = allowed.sum(axis=-1, keepdims=True) + sinks
        right = allowed.astype(np.float64) @ v / np.where(counts == 0, 1, counts)
        assert np.allclose(case.specification(**arguments), right, rtol=4 * np.finfo(np.float64).eps, atol=0)


def test_where_logits_select_a_key_the_oracle_gives_its_value():
    cases = [case for case in probe_cases(taking_everything("attention"), "float32") if case.arrays["q"].recipe == "signs"]
    assert len(cases) >= 15
    chosen = 0
    for case in cases:
        arguments, allowed = visible(case)
        out = case.specification(**arguments)
        keys = np.arange(case.dims["l"]) + case.arrays["q"].seed - case.arrays["k"].seed
        group = case.dims["h"] // case.dims["g"]
        for b, h, i in np.ndindex(*allowed.shape[:3]):
            if 0 <= keys[i] < case.dims["s"] and allowed[b, h, i, keys[i]]:
                assert np.abs(out[b, h, i] - arguments["v"][b, h // group, keys[i]].astype(np.float64)).max() < 1e-20
                chosen += 1
    assert chosen > 400


@pytest.mark.parametrize("form", list(FORMATS))
def test_codes_are_exact_in_every_format(form):
    line = f"attention {form} b=2 h=2 l=60 d=24 g=2 s=70 e=24 q=signs(5)*150 k=signs(0) v=bits(3)"
    arguments = parse_case(line).arguments()
    powers = 1 << np.arange(24)
    assert np.array_equal((arguments["q"][0, 0] > 0) @ powers, np.arange(5, 65))
    assert np.array_equal(arguments["v"].astype(np.int64) @ powers, np.arange(3, 3 + 2 * 2 * 70).reshape(2, 2, 70))
    weights = parse_case(line.replace("bits(3)", "one_hot(0)").replace("e=24", "e=70")).arguments()["v"]
    assert np.array_equal(weights[1, 1].astype(np.float64), np.eye(70))


@pytest.mark.parametrize(
    ("kernel", "words", "message"),
    [
        ("previous_key", ("l=17 s=17", "signs"), "query 0 read key 16 where key 0 was meant"),
        ("keys_of_next_sequence", ("b=3",), "batch 0, head 0, query 0 read batch 2, key 0 where batch 0, key 0 was meant"),
        ("keys_of_next_head", ("b=3",), "read key/value head 2, key 0 where key/value head 0, key 0 was meant"),
        ("hidden_keys_are_read", ("causal=True", "one_hot", "s=33"), "query 0: read, though hidden, key 1, 2, 3, 4, ..."),
        ("sixteenth_key_is_lost", ("s=17", "one_hot"), "query 0: did not read key 16"),
        ("half_the_weight", ("s=17", "one_hot"), "query 0: its weights add up to 0.5 instead of 1"),
        ("padding_in_denominator", ("s=47", "ones"), "its weights add up to 0.9"),
        ("rows_taken_for_contiguous", ("@strided",), "the only NaN among the arguments lies between the rows of q, k, v"),
        ("nearly_zero_weight_for_hidden_keys", ("garbage",), "only in k, v, where nothing may read, are numbers that large"),
    ],
)  # fmt: skip
def test_a_finding_says_what_was_read(kernel, words, message):
    assert message in first_finding(kernel, *words).reads


def test_the_smallest_case_is_plain_and_what_the_first_one_said_stands_beside_it():
    examiner = examiner_of(VIOLATIONS, "previous_key")
    case = first_finding("previous_key", "s=33", "signs", "causal").case
    diagnosed = diagnose(examiner.examine(case), [], examiner, seed=0, steps=300, seconds=20.0).finding
    assert not {recipe.recipe for recipe in diagnosed.case.arrays.values()} & set(CODED_RECIPES)
    assert diagnosed.case.size < case.size
    assert "read key" in diagnosed.reads
    assert str(case) in diagnosed.reads


def numbers_of(values):
    """The numbers that rows of binary digits stand for."""
    return (values.astype(int) << np.arange(values.shape[-1])).sum(axis=-1)


@pytest.mark.parametrize("method", ["paged_attention", "varlen_attention"])
def test_of_equal_weights_the_answer_is_the_mean_of_the_numbers_that_are_read(method):
    plain = 0
    for case in probe_cases(taking_everything(method), "float64"):
        given = case.without_garbage().arguments()
        if not given["q"].any() and "window" not in given and not given.get("causal"):
            plain += 1
            values, out = given["v_pages" if method == "paged_attention" else "v"], METHODS[method](**case.arguments())
            np.testing.assert_allclose(out, mean_of_read(method, given, values), rtol=1e-12)
    assert plain >= 4


def mean_of_read(method, given, values):
    group, heads = given["q"].shape[1] // values.shape[-2], given["q"].shape[1]
    if method == "varlen_attention":
        first, second = given["cu_seqlens_q"], given["cu_seqlens_k"]
        rows = [values[second[i] : second[i + 1]] for i in range(len(first) - 1) for _ in range(first[i + 1] - first[i])]
    else:
        size = given["k_pages"].shape[1]
        tables = zip(given["block_table"], given["context_lens"], strict=True)
        rows = [np.array([values[row[t // size], t % size] for t in range(n)]).reshape(n, *values.shape[2:]) for row, n in tables]
    means = [own.mean(axis=0) if len(own) else np.zeros(own.shape[1:]) for own in rows]
    return np.repeat(np.array(means), group, axis=1).reshape(-1, heads, values.shape[-1])


def test_the_probes_of_caches_give_the_mean_of_the_tokens_that_a_request_has():
    means = 0
    for case in probe_cases(taking_everything("continuous_batching"), "float64"):
        given, window, group = case.arguments(), case.options.get("sliding_window", 0), case.dims["h"] // case.dims["g"]
        for row, got in zip(rows(given["operations"]), METHODS["continuous_batching"](**given), strict=True):
            means += case.arrays["v"].recipe == "bits"
            np.testing.assert_allclose(got, np.repeat(given["v"][list(row.tokens[-window:])].mean(axis=0), group, axis=0), rtol=1e-12)
    assert means > 400


def test_a_probe_names_the_token_of_another_request_that_was_read():
    script = "operations=join(0,2);join(7,3);grow(0,1) sliding_window=1"
    case = parse_case(f"continuous_batching float32 h=1 g=1 d=2 e=4 {script} q=zeros(0) k=normal(0) v=bits(0)")
    given = case.arguments()
    wanted = expected(budget(METHODS["continuous_batching"], given, CONTRACTS["float32"])[0], "float32")
    got = wanted.value.copy()
    got[-2] = given["v"][4]
    assert reading(case, got, wanted) == "request 0, token 2 of it, after operation 2, grow(0,1) read token 4 where token 5 was meant"


def test_the_probes_of_writing_say_which_row_each_place_holds():
    for case in probe_cases(taking_everything("append_to_pages"), "float32"):
        given, (keys, _) = case.arguments(), METHODS["append_to_pages"](**case.arguments())
        size, heads = given["k_pages"].shape[1:3]
        for token, slot in enumerate(given["slots"]):
            if slot >= 0:
                np.testing.assert_array_equal(numbers_of(keys[slot // size, slot % size]), 1 + token * heads + np.arange(heads))


def test_the_probes_of_rotations_hold_sines_and_cosines():
    first, second, halves, interleaved, *_ = probe_cases(taking_everything("rotary_embedding"), "float64")
    np.testing.assert_array_equal(METHODS["rotary_embedding"](**first.arguments()), first.arguments()["x"])
    t = np.arange(9)
    np.testing.assert_allclose(
        METHODS["rotary_embedding"](**second.arguments())[0, 0], np.stack([np.cos(t) - np.sin(t), np.sin(t) + np.cos(t)], -1), atol=1e-12
    )
    for case, partner in ((halves, 4), (interleaved, 1)):
        out = METHODS["rotary_embedding"](**case.arguments())[0, 0]
        np.testing.assert_allclose(out[8, [0, partner]], [np.cos(8.0), np.sin(8.0)], atol=1e-12)  # row 8 is 1 in column 0


def test_a_probe_names_the_place_of_the_cache_that_was_read():
    line = (
        "paged_attention float32 b=1 h=1 d=2 num_blocks=4 block_size=4 g=1 e=6 max_blocks=1 q=zeros(0) k_pages=normal(0) v_pages=bits(0) "
        "block_table=scattered(1) context_lens=first_blocks(21)"
    )
    case = parse_case(line)
    given = case.arguments()
    assert given["context_lens"].tolist() == [1]
    [block] = given["block_table"][0]
    wanted = expected(budget(METHODS["paged_attention"], given, CONTRACTS["float32"])[0], "float32")
    got = np.broadcast_to(given["v_pages"][(block + 1) % 4, 2], wanted.value.shape)
    assert reading(case, got, wanted) == f"query 0 read block {(block + 1) % 4}, offset 2 where block {block}, offset 0 was meant"
