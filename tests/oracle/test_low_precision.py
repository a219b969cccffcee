"""Attention on quantised operands: its meaning, its enclosure, and budgets that hold for honest kernels and for nothing else."""

import ml_dtypes
import numpy as np
import pytest

from oracle import METHODS, OptionError, ShapeError, attention
from oracle.codes import CODE_FORMATS
from oracle.low_precision import hadamard
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS

FP8, SAGE = METHODS["fp8_attention"], METHODS["sage_attention"]
QUANTIZE = METHODS["quantize"]
FORMS = [
    (FP8, {}),
    (FP8, {"format": "float8_e5m2", "causal": True}),
    (FP8, {"signs": "coins", "causal": True}),
    (SAGE, {}),
    (SAGE, {"smooth_q": True, "causal": True}),
    (SAGE, {"smooth_k": False}),
    (SAGE, {"format": "nvfp4", "key_block": 16, "causal": True}),
    (SAGE, {"format": "nvfp4", "key_block": 16, "smooth_q": True}),
]


def draw(seed, options, *, queries=12, keys=37, heads=4, groups=2, width=16, dtype=np.float32, offset=0.0):
    rng = np.random.default_rng(seed)
    arrays = {
        "q": rng.standard_normal((2, heads, queries, width)),
        "k": rng.standard_normal((2, groups, keys, width)) + offset * rng.standard_normal(width),
        "v": rng.standard_normal((2, groups, keys, 6)),
    }
    options = {"query_block": 8, "key_block": 16, **options}
    if "signs" in options:
        arrays["signs"], options = rng.choice([-1.0, 1.0], width), {name: x for name, x in options.items() if name != "signs"}
    return {**{name: x.astype(dtype) for name, x in arrays.items()}, **options}


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize(("method", "options"), FORMS)
def test_it_is_near_exact_attention(method, options):
    given = draw(0, options)
    exact = attention(given["q"], given["k"], given["v"], causal=given.get("causal", False))
    assert 1e-4 < relative(method(**given), exact) < (0.25 if given.get("format") == "nvfp4" else 0.15)


def test_smoothing_does_not_change_what_is_computed_but_how_well():
    given = draw(1, {}, offset=8.0)
    exact = attention(given["q"], given["k"], given["v"])
    assert relative(SAGE(**given), exact) < relative(SAGE(**given, smooth_k=False), exact) / 3
    for form in ("int8", "nvfp4"):
        assert relative(SAGE(**given, format=form), exact) < 0.25


def test_a_rotation_rounds_other_numbers_to_the_same_end():
    given = draw(2, {"signs": True})
    exact = attention(given["q"], given["k"], given["v"])
    unrotated = {name: x for name, x in given.items() if name != "signs"}
    errors = [relative(FP8(**arguments), exact) for arguments in (given, unrotated)]
    assert max(errors) < 0.1
    assert relative(FP8(**given), FP8(**unrotated)) > min(errors) / 4


@pytest.mark.parametrize("width", [1, 2, 16, 128])
def test_the_hadamard_matrix_is_orthogonal_and_symmetric(width):
    matrix = hadamard(width)
    np.testing.assert_array_equal(matrix @ matrix.T, width * np.eye(width))
    np.testing.assert_array_equal(matrix, matrix.T)


def test_int8_attention_is_attention_on_dequantised_tokens():
    given = draw(3, {"smooth_k": False})
    through = {}
    for name, size in (("q", 8), ("k", 16)):
        codes, scales = QUANTIZE(given[name], granularity="block", block_size=size)
        through[name] = codes * np.repeat(scales, size, axis=2)[:, :, : codes.shape[2]]
    np.testing.assert_allclose(SAGE(**given), attention(through["q"], through["k"], given["v"]), atol=1e-13)


def test_weights_of_fp4_do_not_depend_on_what_other_tiles_hold():
    given = draw(4, {"format": "nvfp4"}, keys=32)
    whole = SAGE(**given, smooth_k=False)
    parts = []
    for keys in (slice(0, 16), slice(16, 32)):
        part = {**given, "k": given["k"][:, :, keys], "v": given["v"][:, :, keys]}
        logits = np.einsum("bhld,bhsd->bhls", _fp4(given["q"]), np.repeat(_fp4(part["k"]), 2, axis=1)) / 4
        parts.append((SAGE(**part, smooth_k=False), np.exp(logits).sum(axis=-1, keepdims=True)))
    total = sum(weight for _, weight in parts)
    np.testing.assert_allclose(whole, sum(out * weight for out, weight in parts) / total, atol=1e-13)


def _fp4(x):
    blocks = x.astype(np.float64).reshape(*x.shape[:-1], -1, 16)
    scales = CODE_FORMATS["float8_e4m3fn"].nearest(np.abs(blocks).max(axis=-1, keepdims=True) / 6)
    return (CODE_FORMATS["float4_e2m1fn"].nearest(blocks / scales) * scales).reshape(x.shape)


@pytest.mark.parametrize(("method", "options"), FORMS)
@pytest.mark.parametrize(("queries", "keys"), [(3, 18), (18, 3), (2, 0), (0, 2)])
def test_the_value_lies_in_its_enclosure(method, options, queries, keys):
    given = draw(5, options, queries=queries, keys=keys, heads=2, groups=1, width=4)
    (got,), (exact,) = value(method, given), enclosure(method, given)
    assert got.shape == (2, 2, queries, 6)
    assert (np.abs(got - midpoints(exact)) <= radii(exact) + 1e-13).all()
    if keys == 0 or given.get("causal"):
        hidden = np.arange(queries) + keys - queries < 0 if keys else np.ones(queries, dtype=bool)
        assert (got[:, :, hidden] == 0).all()


def rounding(x, cast):
    return x.astype(cast).astype(np.float32)


def kernel(given, cast, *, weights=lambda x: x, factor=1.0):
    """Float32 inside; what is kept between steps is rounded to the storage dtype, as a model of several kernels does."""
    q, k, v = (given[name].astype(np.float32) for name in "qkv")
    group, (queries, keys), width = q.shape[1] // k.shape[1], (q.shape[2], k.shape[2]), q.shape[3]
    if "signs" in given:
        mix = (hadamard(width) * np.float32(width**-0.5)).astype(np.float32)
        q, k = (rounding(x * given["signs"].astype(np.float32) @ mix, cast) for x in (q, k))
    form = given.get("format", "int8" if given["method"] is SAGE else "float8_e4m3fn")
    added = np.float32(0)
    if given["method"] is SAGE and given.get("smooth_k", True):
        k = rounding(k - rounding(k.mean(axis=2, keepdims=True), cast), cast)
    if given.get("smooth_q"):
        means = np.concatenate([np.broadcast_to(x.mean(axis=2, keepdims=True), x.shape) for x in np.split(q, [8], axis=2)], axis=2)
        means = rounding(means, cast)
        q, added = rounding(q - means, cast), means @ np.repeat(k, group, axis=1).swapaxes(2, 3)
    if form == "nvfp4":
        q, k, v = _fp4_of(q), _fp4_of(k), _fp4_of(v.swapaxes(2, 3)).swapaxes(2, 3)
    else:
        q, k = _codes(q, form, 8), _codes(k, form, 16)
        v = _codes(v, form, 16) if given["method"] is FP8 else v
    logits = (q @ np.repeat(k, group, axis=1).swapaxes(2, 3) + added) * np.float32(factor * width**-0.5)
    if given.get("causal"):
        logits = np.where(np.arange(keys) <= np.arange(queries)[:, None] + keys - queries, logits, -np.inf)
    p = np.exp(logits - np.maximum(logits.max(axis=-1, keepdims=True), -1e30))
    if form == "nvfp4":
        tiles = [p[..., start : start + 16] for start in range(0, keys, 16)]
        levels = [np.maximum(tile.max(axis=-1, keepdims=True), 1e-30) / np.float32(6 * 448) for tile in tiles]
        used = np.concatenate([_fp4_of(tile / level) * level for tile, level in zip(tiles, levels, strict=True)], axis=-1)
    else:
        used = weights(p)
    return (used @ np.repeat(v, group, axis=1) / np.maximum(p.sum(axis=-1, keepdims=True), 1e-30)).astype(cast)


def _fp4_of(x):
    width = x.shape[-1]
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], -width % 16), np.float32)], axis=-1)
    blocks = padded.reshape(*x.shape[:-1], -1, 16)
    scales = (np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(6)).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    numbers = np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales > 0).clip(-6, 6)
    return (numbers.astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * scales).reshape(padded.shape)[..., :width]


def _codes(x, form, size):
    largest = np.float32(CODE_FORMATS[form].largest)
    out = np.empty_like(x)
    for start in range(0, x.shape[2], size):
        block = x[:, :, start : start + size]
        scale = np.abs(block).max(axis=(2, 3), keepdims=True) / largest
        codes = np.rint(block / scale) if form == "int8" else (block / scale).clip(-largest, largest).astype(form).astype(np.float32)
        out[:, :, start : start + size] = codes * scale
    return out


@pytest.mark.parametrize(("method", "options"), FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("offset", [0.0, 4.0])
def test_honest_kernels_stay_within_the_budget(method, options, dtype, offset):
    cast = CONTRACTS[dtype].output.dtype
    in_float8 = lambda p: p.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)  # noqa: E731
    in_storage = lambda p: rounding(p, cast)  # noqa: E731
    for seed in range(4):
        given = draw(seed, options, dtype=cast, offset=offset)
        want = expected(budget(method, given, CONTRACTS[dtype])[0], dtype)
        for weights in (in_float8, in_storage) if method is FP8 else (in_storage,):
            got = kernel({**given, "method": method}, cast, weights=weights)
            assert (np.abs(got.astype(np.float64) - want.value) <= want.budget).all()


@pytest.mark.parametrize(("method", "options"), FORMS)
def test_logits_that_are_off_by_a_few_percent_leave_the_budget(method, options):
    given = draw(7, options, keys=9)
    given["q"] *= 8  # the weights of float8 may be wrong by a sixteenth each: few keys tell most
    want = expected(budget(method, given, CONTRACTS["float32"])[0], "float32")
    got = kernel({**given, "method": method}, np.float32, factor=1.1 if method is FP8 else 1.01)
    assert (np.abs(got - want.value) > want.budget).any()


@pytest.mark.parametrize(("options", "own"), [({}, 0.02), ({"format": "nvfp4"}, 0.25)])
def test_the_budget_is_far_below_what_quantising_costs(options, own):
    given = draw(8, options)
    (bound,) = budget(SAGE, given, CONTRACTS["float32"])
    assert np.median(bound.full_error) < 1e-2 * own * np.abs(bound.value).mean()


def test_arguments_that_do_not_fit_are_named():
    given = draw(9, {"signs": True}, width=12)
    with pytest.raises(ShapeError, match="a rotation needs a width that is a power of two"):
        FP8(**given)
    with pytest.raises(OptionError, match=r"signs\[0\]=0.5, but should be 1 or -1"):
        FP8(**{**draw(9, {"signs": True}), "signs": np.full(16, 0.5)})
    with pytest.raises(ShapeError, match="a tile of weights holds whole blocks of NVFP4"):
        SAGE(**draw(9, {"format": "nvfp4", "key_block": 24}))
    with pytest.raises(OptionError, match="format='fp4', but should be one of int8, nvfp4"):
        SAGE(**draw(9, {"format": "fp4"}))
