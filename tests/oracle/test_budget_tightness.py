"""Odd but right ways of computing attention stay within the budget, and wrong precision does not.

Run with ``-s`` to see, for every kind of input, the worst error over budget and which kernel had it.
"""

from functools import cache, partial

import attention_kernels as kernels
import ml_dtypes
import numpy as np
import pytest

from oracle import attention
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

STORAGE = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
FOLDS = ("logits", "q", "k", "both")

IN_FLOAT32 = (
    {f"three passes, scale in {fold}": partial(kernels.softmax, scaled=fold) for fold in FOLDS}
    | {f"exp2, log2(e) in {fold}": partial(kernels.softmax, scaled=fold, base=2) for fold in FOLDS}
    | {
        "sequential sums": partial(kernels.softmax, sequential=True),
        "sequential, normalised first, exp2": partial(kernels.softmax, sequential=True, normalise="before", base=2, scaled="q"),
        "normalised first": partial(kernels.softmax, normalise="before"),
    }
    | {
        f"online, tile {tile}{', backwards' * backwards}": partial(kernels.online, tile=tile, backwards=backwards, base=base)
        for tile in (1, 16, 64)
        for backwards, base in ((False, np.e), (True, 2))
    }
    | {"online, one sequential tile": partial(kernels.online, tile=10**6, sequential=True)}
    | {f"split in {parts}": partial(kernels.split, parts=parts) for parts in (2, 16, 64)}
    | {f"split in {parts}, base 2": partial(kernels.split, parts=parts, base=2) for parts in (3, 16)}
    | {f"ring of {parts}": partial(kernels.ring, parts=parts) for parts in (2, 8)}
)
IN_HALF = {
    f"cast {before} normalising, sum {total} the cast{', sequential' * sequential}": partial(
        kernels.softmax, cast=True, normalise="after" if before == "before" else "before", total=total, sequential=sequential
    )
    for before, total in (("before", "before"), ("before", "after"), ("after", "before"))
    for sequential in (False, True)
} | {
    "online, cast, tile 16": partial(kernels.online, tile=16, cast=True),
    "online, cast, tile 1, backwards": partial(kernels.online, tile=1, cast=True, backwards=True),
    "split in 16, cast": partial(kernels.split, parts=16, cast=True),
    "no cast": kernels.softmax,
}
KERNELS = {"float32": IN_FLOAT32, "bfloat16": IN_HALF, "float16": IN_HALF}


def ahead(length, gap, others):
    """Keys of which the first scores ``gap`` and the others what is given, for `towards` queries."""
    k = np.zeros((length, 1))
    k[:, 0] = others
    k[0] = gap
    return k


def inputs(kind, rng, length, width):
    """q (up to 24 rows), k and v of a kind that is hard on an error analysis."""
    q, k, v = rng.standard_normal((min(length, 24), width)), rng.standard_normal((length, width)), rng.standard_normal((length, width))
    towards = np.zeros_like(q)
    towards[:, 0] = np.sqrt(width)

    def first_feature(scores):
        return np.concatenate([scores, np.zeros((length, width - 1))], axis=1)

    def near_ties(spread, values):
        return q, k[:1] * (1 + spread * rng.standard_normal((length, 1))), values

    def spike(gap, values, spread=0.5):
        return towards, first_feature(ahead(length, gap, spread * rng.uniform(-1, 1, length))), values

    def with_first(rows, feature):
        return np.concatenate([np.full((len(rows), 1), feature), rows[:, 1:]], axis=1)

    odd = np.arange(length)[:, None] % 2
    positive, first_large = np.abs(v) + 1, np.where(np.arange(length)[:, None] == 0, 8.0, np.abs(v) + 1)
    name, _, number = kind.partition(" ")
    makers = {
        "x": lambda: (q * float(number), k, v),
        "equal": lambda: (q, np.broadcast_to(k[:1], k.shape), v),
        "rising": lambda: (towards, first_feature(np.sort(rng.uniform(0, 12, (length, 1)), axis=0)), v),
        "falling": lambda: (towards, first_feature(-np.sort(rng.uniform(0, 12, (length, 1)), axis=0)), v),
        "slowly-rising": lambda: (towards, first_feature(1e-4 * np.arange(length)[:, None]), np.abs(v)),
        "near-ties": lambda: near_ties(float(number), positive),
        "clusters": lambda: (q, near_ties(1e-4, v)[1] * np.where(odd, 1, 0.9), 1 - 4.0 * odd + 0 * v),
        "offset": lambda: (with_first(q, float(number) * np.sqrt(width)), with_first(k, 1.0), v),
        "constant-values": lambda: (q, k, np.full_like(v, 1.2345678)),
        "spike": lambda: spike(float(number), positive),
        "spike-over-ties": lambda: spike(float(number), positive, 1e-3),
        "spike-of-both": lambda: spike(float(number), first_large),
        "large-value": lambda: (q * 1e-2, k, np.where(np.arange(length)[:, None] == 0, 1e3, 1e-4 * np.abs(v))),
        "channel": lambda: (np.where(np.arange(width) == 1, 50.0, 1.0) * q, k, v),
    }  # fmt: skip
    return makers[name]()


KINDS = (
    "x 1", "x 10", "x 100", "equal", "rising", "falling", "slowly-rising", "near-ties 1e-6", "near-ties 1e-4", "near-ties 1e-2", "clusters",
    "offset 1e3", "offset -1e3", "constant-values", "spike 5", "spike 12", "spike 15.5", "spike 16.5", "spike-over-ties 12",
    "spike-over-ties 16.5", "spike-of-both 16", "large-value", "channel",
)  # fmt: skip


@cache
def judged(kind, storage, length, width, contract):
    """Stored inputs of a kind and what the oracle expects for them."""
    rng = np.random.default_rng([length, width])
    q, k, v = (np.ascontiguousarray(x).astype(np.float32).astype(STORAGE[storage]) for x in inputs(kind, rng, length, width))
    arguments = {"q": q[None, None], "k": k[None, None], "v": v[None, None]}
    wanted = expected(budget(attention, arguments, CONTRACTS[contract])[0], storage)
    return (q, k, v), wanted.value[0, 0], wanted.budget[0, 0]


def ratios(kernel, kind, storage, length, width, contract=None):
    """Error over budget of every element; no number, where one is wanted, is infinitely far off."""
    arrays, value, allowed = judged(kind, storage, length, width, contract or storage)
    with np.errstate(all="ignore"):
        got = kernel(*arrays).astype(np.float64)
    error = np.where(np.isfinite(got), np.abs(got - value), np.inf)
    return np.where(allowed < np.inf, error / np.maximum(allowed, 1e-300), 0.0)


def survey(kind, storage, shapes):
    """Worst ratio of each kernel; printed, so that a budget that has grown loose or tight shows."""
    worst = {
        name: max(float(ratios(kernel, kind, storage, length, width).max()) for length, width in shapes)
        for name, kernel in KERNELS[storage].items()
    }
    order = sorted(worst, key=worst.get)
    quartiles = ", ".join(f"{worst[order[len(order) * part // 4]]:.3f}" for part in (1, 2, 3))
    print(f"\n{storage:9s} {kind:22s} worst {worst[order[-1]]:.3f} by {order[-1]}; quartiles of kernels {quartiles}", end="")  # noqa: T201
    return worst


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_every_right_way_of_computing_stays_within_the_budget(kind, storage):
    worst = survey(kind, storage, ((1, 4), (3, 8), (7, 64), (19, 8), (65, 16), (257, 32)))
    assert max(worst.values()) <= 1, worst


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_right_way_of_computing_stays_within_the_budget_over_thousands_of_keys(kind, storage):
    worst = survey(kind, storage, ((2048, 8),) if storage == "float32" else ((1024, 8),))
    assert max(worst.values()) <= 1, worst


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_no_budget_would_let_zeros_pass(kind, storage):
    _, value, allowed = judged(kind, storage, 257, 32, storage)
    assert np.all(allowed < np.inf)
    assert np.mean(np.abs(value) > allowed) > 0.5


@pytest.mark.parametrize(("storage", "least"), [("float32", 0.03), ("bfloat16", 0.3), ("float16", 0.3)])
def test_right_kernels_use_a_good_part_of_an_ordinary_budget(storage, least):
    worst = {kind: max(survey(kind, storage, ((7, 64), (65, 16), (257, 32))).values()) for kind in ("x 1", "x 10")}
    assert min(worst.values()) > least, worst


def worst_of(kernel, kind, storage, contract=None, shapes=((33, 32), (257, 32))):
    return [float(ratios(kernel, kind, storage, length, width, contract).max()) for length, width in shapes]


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
@pytest.mark.parametrize("kernel", [kernels.softmax_in_bfloat16, kernels.logits_in_bfloat16])
def test_a_softmax_on_logits_of_bfloat16_leaves_the_budget(kernel, storage):
    for kind in ("x 3", "x 10", "x 100", "offset 1e3"):
        assert min(worst_of(kernel, kind, storage)) > 1.5, kind


def test_a_softmax_wholly_in_bfloat16_leaves_the_budget_even_on_small_logits():
    assert min(worst_of(kernels.softmax_in_bfloat16, "x 1", "bfloat16", shapes=((257, 80), (1024, 64)))) > 1


@pytest.mark.parametrize("kernel", [kernels.softmax_in_bfloat16, kernels.logits_in_bfloat16, kernels.products_in_tf32])
def test_less_than_float32_leaves_the_float32_budget_at_once(kernel):
    for kind in ("x 1", "x 3", "x 10", "channel"):
        assert min(worst_of(kernel, kind, "float32")) > 5, kind


@pytest.mark.parametrize("kind", KINDS)
def test_products_in_tf32_pass_under_their_own_contract(kind):
    assert max(worst_of(kernels.products_in_tf32, kind, "float32", "tf32", ((3, 8), (33, 32), (257, 32)))) <= 1


def test_weights_cast_to_bfloat16_pass_under_the_contract_that_says_so_and_not_without_it():
    def cast(q, k, v):
        logits = kernels.logits_of(q, k)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return kernels.matmul(weights.astype(ml_dtypes.bfloat16), v) / kernels.row_sum(weights)

    for kind in ("x 1", "x 10", "near-ties 1e-2"):
        assert max(worst_of(cast, kind, "float32", "float32-bfloat16-weights")) <= 1
        assert min(worst_of(cast, kind, "float32")) > 5
