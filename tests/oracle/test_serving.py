"""Caches in blocks, packed sequences, and rotary embeddings: held against plain loops, and what the readings make of them."""

from random import Random

import numpy as np
import pytest
from rounding_machine import Machine
from test_bounded_attention import machines, on_machine, worst_ratios

from conformance.cases.shapes import Stage
from conformance.cases.strategies import random_case
from conformance.judge import compare
from conformance.registry import Implementation
from oracle import METHODS, OptionError, ShapeError
from oracle.readings import budget, enclosure, expected, perturbed, running_bound, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS

PAGED, APPEND, VARLEN, ROTARY = (METHODS[name] for name in ("paged_attention", "append_to_pages", "varlen_attention", "rotary_embedding"))
SERVING = pytest.mark.parametrize("method", [PAGED, APPEND, VARLEN, ROTARY], ids=lambda method: method.name)
SMALL = Stage("small", 1.0, 12, 600)
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def drawn(method, count, dtype="float64", seed=0):
    implementation, rng = Implementation("any", method.name, "numpy", "any:any", options=method.keywords), Random(seed)
    return [random_case(rng, implementation, dtype, SMALL) for _ in range(count)]


def attend(q, k, v, allowed, options):
    """Softmax attention of one query head, row by row: q (L, D), k (S, D), v (S, Dv), allowed (L, S)."""
    scale, softcap = options.get("scale", max(q.shape[1], 1) ** -0.5), options.get("softcap")
    out = np.zeros((len(q), v.shape[1]))
    for row, mine in enumerate(allowed):
        if mine.any():
            logits = k[mine] @ q[row] * scale
            logits = logits if softcap is None else softcap * np.tanh(logits / softcap)
            weights = np.exp(logits - logits.max())
            out[row] = weights / weights.sum() @ v[mine]
    return out


def in_window(ahead, window):
    left, right = window or (None, None)
    return (True if left is None else ahead >= -left) & (True if right is None else ahead <= right)


def test_paged_attention_is_attention_to_the_positions_that_count():
    boundaries = set()
    for case in drawn(PAGED, 150):
        given = case.plain().arguments()
        q, k_pages, v_pages = given["q"], given["k_pages"], given["v_pages"]
        size, group = k_pages.shape[1], q.shape[1] // k_pages.shape[2]
        out = PAGED(**given)
        for b, context in enumerate(given["context_lens"]):
            boundaries.add((context % size == 0, context % size == 1, context == 0))
            rows = [(given["block_table"][b, t // size], t % size) for t in range(context)]
            for h in range(q.shape[1]):
                k, v = (np.array([pages[block, offset, h // group] for block, offset in rows]) for pages in (k_pages, v_pages))
                k, v = k.reshape(context, q.shape[2]), v.reshape(context, v_pages.shape[3])
                allowed = in_window(np.arange(context) - (context - 1), given.get("window")) & np.ones((1, context), bool)
                np.testing.assert_allclose(out[b, h], attend(q[b, h : h + 1], k, v, allowed, given)[0], **CLOSE, err_msg=str(case))
    assert {(True, False, True), (True, False, False), (False, True, False)} <= boundaries


def test_varlen_attention_is_attention_within_each_sequence():
    empty = 0
    for case in drawn(VARLEN, 150):
        given = case.plain().arguments()
        q, k, v = (given[name] for name in "qkv")
        group, out = q.shape[1] // k.shape[1], VARLEN(**given)
        edges = [given[f"cu_seqlens_{name}"] for name in "qk"]
        for a, b, c, d in zip(edges[0][:-1], edges[0][1:], edges[1][:-1], edges[1][1:], strict=True):
            empty += (a == b) != (c == d)
            ahead = np.arange(d - c) - (np.arange(b - a)[:, None] + (d - c) - (b - a))
            allowed = in_window(ahead, given.get("window")) & ((ahead <= 0) | (not given.get("causal", False)))
            for h in range(q.shape[1]):
                want = attend(q[a:b, h], k[c:d, h // group], v[c:d, h // group], allowed, given)
                np.testing.assert_allclose(out[a:b, h], want, **CLOSE, err_msg=str(case))
    assert empty > 20


def test_what_lies_in_one_sequence_has_no_effect_on_another():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((9, 1, 3)) for _ in range(3))
    edges = np.array([0, 4, 9])
    k[4:], v[4:] = np.nan, np.inf
    out = VARLEN(q, k, v, edges, edges)
    assert np.isfinite(out[:4]).all() and np.isnan(out[4:]).all()


def test_new_tokens_go_to_their_slots_and_nothing_else_changes():
    for case in drawn(APPEND, 80):
        given = case.arguments()
        size = given["k_pages"].shape[1]
        wanted = [given["k_pages"].copy(), given["v_pages"].copy()]
        for token, slot in enumerate(given["slots"]):
            if slot >= 0:
                for pages, name in zip(wanted, "kv", strict=True):
                    pages[slot // size, slot % size] = given[name][token]
        for got, want in zip(APPEND(**given), wanted, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=str(case))


def rotated(x, position, base, interleaved, width):
    """One row, pair by pair, as complex numbers."""
    out, half = np.array(x), width // 2
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        z = complex(x[a], x[b]) * np.exp(1j * position * base ** (-2 * i / width))
        out[a], out[b] = z.real, z.imag
    return out


def test_each_pair_is_turned_by_its_angle():
    for case in drawn(ROTARY, 100):
        given = case.plain().arguments()
        x, positions = given["x"], np.broadcast_to(given["positions"], (given["x"].shape[0], given["x"].shape[2]))
        width = given.get("rotary_width", x.shape[3])
        out = ROTARY(**given)
        for b, h, t in np.ndindex(x.shape[:3]):
            want = rotated(x[b, h, t], positions[b, t], given.get("base", 10000.0), given.get("interleaved", False), width)
            far = 1 + 1e-3 * positions[b, t]  # the angle itself is a float64
            np.testing.assert_allclose(out[b, h, t], want, rtol=1e-12 * far, atol=1e-12 * far, err_msg=str(case))


@pytest.mark.parametrize("interleaved", [False, True])
def test_the_product_of_a_query_and_a_key_depends_on_their_distance(interleaved):
    rng = np.random.default_rng(1)
    q, k = rng.standard_normal((2, 1, 1, 1, 8))
    scores = [
        float((ROTARY(q, np.array([[at + 7]]), interleaved=interleaved) * ROTARY(k, np.array([[at]]), interleaved=interleaved)).sum())
        for at in (0, 3, 100, 5000)
    ]
    np.testing.assert_allclose(scores, scores[0], rtol=1e-10)


@SERVING
def test_the_value_lies_in_its_enclosure(method):
    for case in drawn(method, 25, seed=1):
        given = case.plain().arguments()
        for got, exact in zip(value(method, given), enclosure(method, given), strict=True):
            largest = max(np.abs(x).max(initial=1e-300) for x in given.values() if isinstance(x, np.ndarray) and x.dtype.kind == "f")
            far = 1 + 1e-3 * given["positions"].max(initial=0) if method is ROTARY else 1.0
            assert (np.abs(got - midpoints(exact)) + radii(exact) <= 1e-12 * far * largest).all(), str(case)


def small(x):
    """Floats in float64 and of a few units; anything else as it is."""
    return np.clip(x.astype(np.float64), -3, 3) if isinstance(x, np.ndarray) and x.dtype.kind != "i" else x


@SERVING
@pytest.mark.parametrize("form", ["float32", "float16", "bfloat16"])
def test_a_rounding_machine_stays_within_the_bound(method, form):
    rng, worst = np.random.default_rng(0), 0.0
    for case in drawn(method, 12, form, seed=2):
        given = {name: small(x) for name, x in case.plain().arguments().items()}
        worst = max([worst, *worst_ratios(method, given, form, rng)])
    assert worst <= 1
    assert method is APPEND or worst > 0.02  # a bound that nothing comes near would say nothing


@SERVING
def test_the_perturbed_reading_knows_every_operation(method):
    for case in drawn(method, 6, seed=3):
        given = case.plain().arguments()
        bounds, spreads = (reading(method, given, CONTRACTS["float32"]) for reading in (running_bound, perturbed))
        for bound, (same, error) in zip(bounds, spreads, strict=True):
            np.testing.assert_allclose(same, bound.value, rtol=1e-12, atol=1e-12)
            assert (np.nan_to_num(error, nan=np.inf, posinf=np.inf) >= 0).all()


def turned_in_float32(x, positions, shift=0, exchanged=False):
    """As a kernel computes it: float32 frequencies, angles, sines and cosines."""
    half = x.shape[-1] // 2
    frequencies = (np.float32(1) / np.float32(10000.0) ** (np.arange(half, dtype=np.float32) * 2 / np.float32(2 * half))).astype(np.float32)
    angle = (positions + shift)[:, None, :, None].astype(np.float32) * frequencies
    first, second = (x[..., 0::2], x[..., 1::2]) if exchanged else (x[..., :half], x[..., half:])
    cos, sin = np.cos(angle), np.sin(angle)
    parts = first * cos - second * sin, first * sin + second * cos
    return np.stack(parts, -1).reshape(x.shape) if exchanged else np.concatenate(parts, -1)


@pytest.mark.parametrize("farthest", [100, 10_000, 1_000_000, 2**24])
def test_float32_angles_are_allowed_however_far_and_other_positions_are_not(farthest):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 2, 64, 64)).astype(np.float32)
    positions = rng.integers(0, farthest + 1, (2, 64))
    [bounded] = budget(ROTARY, {"x": x, "positions": positions}, CONTRACTS["float32"])
    wanted = expected(bounded, "float32")
    ratio, agrees = compare(turned_in_float32(x, positions), wanted)
    assert agrees.all()
    assert farthest > 100 or ratio.max() > 0.02
    assert not compare(turned_in_float32(x, positions, exchanged=True), wanted)[1].all()
    assert not compare(turned_in_float32(x, np.minimum(positions, 2**24 - 1), shift=1), wanted)[1].all()


@pytest.mark.parametrize("position", [0, 1, 1000, 1_000_000])
def test_a_position_that_is_off_by_one_shows_up_to_a_million(position):
    x = np.random.default_rng(6).standard_normal((1, 2, 8, 16)).astype(np.float32)
    positions = np.full((1, 8), position)
    wanted = expected(budget(ROTARY, {"x": x, "positions": positions}, CONTRACTS["float32"])[0], "float32")
    assert compare(turned_in_float32(x, positions), wanted)[1].all()
    assert not compare(turned_in_float32(x, positions, shift=1), wanted)[1].all()


def table(*first):
    return np.array([first, [2, -1, -1]])


def paged(**changes):
    given = {
        "q": np.ones((2, 2, 3)), "k_pages": np.ones((4, 2, 1, 3)), "v_pages": np.ones((4, 2, 1, 3)),
        "block_table": table(0, 3, -1), "context_lens": np.array([4, 1]),
    }  # fmt: skip
    return {**given, **changes}


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"block_table": table(0, 4, -1)}, OptionError, r"block_table\[0, 1\]=4, but should be at least 0 and below num_blocks=4"),
        ({"block_table": table(0, -1, 3)}, OptionError, r"\[0, 1\]=-1, .* as context_lens\[0\]=4 uses entry 1 of blocks of 2"),
        ({"block_table": table(0, 3, -2)}, OptionError, r"\[0, 2\]=-2, but should be at least 0 and below num_blocks=4, or -1"),
        ({"context_lens": np.array([7, 1])}, OptionError, r"context_lens\[0\]=7, but should be from 0 to block_size \* max_blocks = 6"),
        ({"context_lens": np.array([4, -1])}, OptionError, r"context_lens\[1\]=-1"),
        ({"context_lens": np.array([4.0, 1.0])}, OptionError, "context_lens.dtype=float64, but should be an integer dtype"),
        ({"context_lens": np.array([4])}, ShapeError, r"context_lens.shape\[0\]=1, but should be b=2"),
        ({"k_pages": np.ones((0, 2, 1, 3)), "v_pages": np.ones((0, 2, 1, 3))}, OptionError, "below num_blocks=0"),
        ({"window": (2, -1)}, OptionError, "window"),
    ],
)  # fmt: skip
def test_a_cache_that_does_not_fit_is_refused(changed, error, words):
    PAGED(**paged())
    with pytest.raises(error, match=words):
        PAGED(**paged(**changed))


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([1, 2, 5], r"cu_seqlens_q\[0\]=1, but should be 0"),
        ([0, 4, 2, 5], r"cu_seqlens_q\[2\]=2, but should be at least cu_seqlens_q\[1\]=4: they never decrease"),
        ([0, 2, 4], r"cu_seqlens_q\[2\]=4, but should be l=5"),
        ([0, 2, 6], r"cu_seqlens_q\[2\]=6, but should be l=5"),
    ],
)
def test_cumulative_lengths_that_do_not_fit_are_refused(edges, words):
    x, keys = np.ones((5, 1, 2)), np.linspace(0, 5, len(edges)).astype(int)
    VARLEN(x, x, x, keys, keys)
    with pytest.raises(OptionError, match=words):
        VARLEN(x, x, x, np.array(edges), keys)


def test_tokens_without_a_sequence_and_no_cumulative_lengths_are_refused():
    x = np.ones((5, 1, 2))
    for edges in (np.array([0]), np.array([], int)):
        with pytest.raises((ShapeError, OptionError)):
            VARLEN(x, x, x, edges, edges)
    assert VARLEN(x[:0], x[:0], x[:0], np.array([0]), np.array([0])).shape == (0, 1, 2)


@pytest.mark.parametrize(
    ("slots", "words"), [([0, 8], r"slots\[1\]=8"), ([3, 3], "no place twice"), ([-2, 0], r"slots\[0\]=-2, but should be -1, or")]
)
def test_slots_that_do_not_fit_are_refused(slots, words):
    row, pages = np.ones((2, 1, 3)), np.ones((4, 2, 1, 3))
    APPEND(row, row, pages, pages, np.array([-1, -1]))
    with pytest.raises(OptionError, match=words):
        APPEND(row, row, pages, pages, np.array(slots))


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"x": np.ones((1, 1, 2, 3))}, ShapeError, "columns come in pairs"),
        ({"rotary_width": 3}, ShapeError, "pairs of columns are turned"),
        ({"rotary_width": 6}, ShapeError, "no more than there are"),
        ({"base": 1.0}, OptionError, "base=1.0, but should be a number > 1"),
        ({"positions": np.array([[0, -1]])}, OptionError, r"positions\[0, 1\]=-1, but should be from 0 to 16777216"),
        ({"positions": np.array([[0, 2**24 + 1]])}, OptionError, "from 0 to 16777216"),
        ({"positions": np.array([[0.0, 1.0]])}, OptionError, "integer dtype"),
    ],
)
def test_rotations_that_make_no_sense_are_refused(changed, error, words):
    given = {"x": np.ones((1, 1, 2, 4)), "positions": np.array([[0, 1]])}
    ROTARY(**given)
    with pytest.raises(error, match=words):
        ROTARY(**{**given, **changed})


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
def test_memory_of_others_may_hold_nan(form):
    rng = np.random.default_rng(5)
    given = paged(q=rng.standard_normal((2, 2, 3)), k_pages=rng.standard_normal((4, 2, 1, 3)), v_pages=rng.standard_normal((4, 2, 1, 3)))
    poisoned = dict(given)
    for name, elements in PAGED.foreign(given).items():
        assert elements.any() and not elements.all()
        poisoned[name] = np.where(elements, np.nan, given[name])
    np.testing.assert_array_equal(PAGED(**poisoned), PAGED(**given))
    for machine in machines(form, rng):
        [out] = on_machine(PAGED, machine, poisoned)
        assert np.isfinite(out.value).all()
    assert Machine(form)
