"""quantize and dequantize: their meaning, exactly, and what float32 kernels may do."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from conformance.judge import compare
from oracle import METHODS, OptionError, ShapeError
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS

QUANTIZE, DEQUANTIZE = METHODS["quantize"], METHODS["dequantize"]
LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
GRANULARITIES = ("token", "tensor", "channel", "block")


def draw(seed, shape=(2, 3, 21, 16), dtype=np.float32):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 2, (*shape[:3], 1))).astype(dtype)


def groups(shape, granularity, size):
    """Indices of what shares a scale, and of the scale."""
    for b, h in np.ndindex(shape[:2]):
        if granularity == "token":
            yield from (((b, h, t), (b, h, t, 0)) for t in range(shape[2]))
        elif granularity == "channel":
            yield from (((b, h, slice(None), c), (b, h, 0, c)) for c in range(shape[3]))
        elif granularity == "block":
            yield from (((b, h, slice(t, t + size)), (b, h, t // size, 0)) for t in range(0, shape[2], size))
    if granularity == "tensor":
        yield (slice(None),), (0, 0, 0, 0)


def cast(x, form):
    """What NumPy and ml_dtypes make of numbers that a format has room for."""
    return np.rint(x) if form == "int8" else np.clip(x, -LARGEST[form], LARGEST[form]).astype(form).astype(np.float64)


@pytest.mark.parametrize("form", LARGEST)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_each_group_is_divided_by_its_own_scale(form, granularity):
    x = draw(0).astype(np.float64)
    codes, scales = QUANTIZE(x, format=form, granularity=granularity, block_size=8)
    seen = np.zeros(x.shape)
    for members, place in groups(x.shape, granularity, 8):
        scale = np.abs(x[members]).max() / LARGEST[form]
        assert scales[place] == scale
        np.testing.assert_array_equal(codes[members], cast(x[members] / scale, form))
        seen[members] += 1
    assert (seen == 1).all()
    np.testing.assert_array_equal(
        DEQUANTIZE(codes, scales, format=form, granularity=granularity, block_size=8),
        codes * (np.repeat(scales, 8, axis=2)[:, :, :21] if granularity == "block" else scales),
    )


@pytest.mark.parametrize("form", LARGEST)
def test_given_scales_are_used_and_what_is_too_large_saturates(form):
    x, scales = draw(1).astype(np.float64), np.full((1, 1, 1, 1), 2.0**-12)
    codes, returned = QUANTIZE(x, scales=scales, format=form, granularity="tensor")
    np.testing.assert_array_equal(codes, cast(np.clip(x / scales, -LARGEST[form], LARGEST[form]), form))
    np.testing.assert_array_equal(returned, scales)
    if form != "float8_e5m2":
        assert (np.abs(codes) == LARGEST[form]).sum() > 100


def test_a_cast_without_saturation_is_a_convention():
    x, scales = draw(1).astype(np.float64), np.full((1, 1, 1, 1), 2.0**-12)
    given = {"scales": scales, "format": "float8_e4m3fn", "granularity": "tensor"}
    codes, _ = QUANTIZE(x, **given, overflow="special")
    saturated, _ = QUANTIZE(x, **given)
    beyond = np.abs(x / scales) > 464
    assert 100 < beyond.sum() < x.size
    np.testing.assert_array_equal(np.isnan(codes), beyond)
    np.testing.assert_array_equal(codes[~beyond], saturated[~beyond])


def test_the_scale_of_nothing_means_nothing_but_is_no_nan():
    given = {"x": np.zeros((1, 1, 2, 4), np.float32)}
    want = expected(budget(QUANTIZE, given, CONTRACTS["float32"])[1], "float32")
    for scale, fits in ((1.0, True), (0.0, True), (1e-12, True), (1e30, True), (np.inf, False), (np.nan, False)):
        assert compare(np.full((1, 1, 2, 1), scale, np.float32), want)[1].all() == fits
    declared = expected(budget(QUANTIZE, {**given, "zero_scale": "one"}, CONTRACTS["float32"])[1], "float32")
    assert not compare(np.zeros((1, 1, 2, 1), np.float32), declared)[1].any()


def test_eps_bounds_the_largest_magnitude_from_below():
    x = np.array([[[[0.5, -0.25], [1e-9, 0.0], [0.0, 0.0]]]])
    codes, scales = QUANTIZE(x, eps=1e-3)
    np.testing.assert_array_equal(scales[0, 0, :, 0], np.array([0.5, 1e-3, 1e-3]) / 127)
    np.testing.assert_array_equal(codes[0, 0], [[127, -64], [0, 0], [0, 0]])


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("zero_scale", "want"), [("any", 1.0), ("one", 1.0), ("zero", 0.0)])
def test_nothing_but_zeros_has_codes_of_zero(granularity, zero_scale, want):
    codes, scales = QUANTIZE(np.zeros((1, 2, 5, 4)), granularity=granularity, block_size=2, zero_scale=zero_scale)
    assert (codes == 0).all()
    assert (scales == want).all()


@pytest.mark.parametrize("form", LARGEST)
def test_values_lie_in_their_enclosure(form):
    given = {"x": draw(3, (1, 2, 5, 4)), "format": form, "granularity": "block", "block_size": 3}
    for got, exact in zip(value(QUANTIZE, given), enclosure(QUANTIZE, given), strict=True):
        assert (np.abs(got - midpoints(exact)) <= radii(exact) + 1e-14 * np.abs(got)).all()


def dividing(x, form):
    scales = np.abs(x).max(axis=3, keepdims=True) / np.float32(LARGEST[form])
    return x / scales, scales


def by_reciprocal(x, form):
    scales = np.abs(x).max(axis=3, keepdims=True) * np.float32(1 / LARGEST[form])
    return x * (np.float32(1) / scales), scales


def by_ratio(x, form):
    largest = np.abs(x).max(axis=3, keepdims=True)
    return x * (np.float32(LARGEST[form]) / largest), largest / np.float32(LARGEST[form])


@pytest.mark.parametrize("form", LARGEST)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_honest_kernels_stay_within_the_budget_and_need_it(form, dtype):
    flipped = free = elements = 0
    for seed in range(40):
        x = draw(seed, (2, 2, 64, 128)).astype(dtype)
        bounds = budget(QUANTIZE, {"x": x, "format": form}, CONTRACTS[dtype])
        codes, scales = (expected(bound, "float64") for bound in bounds)
        free += (codes.budget > 0.01).sum()
        elements += x.size
        for kernel in (dividing, by_reciprocal, by_ratio):
            quotient, own = kernel(x.astype(np.float32), form)
            got = cast(quotient, form)
            assert (np.abs(got - codes.value) <= codes.budget).all()
            assert (np.abs(own - scales.value) <= scales.budget).all()
            flipped += (got != codes.value).sum()
    # Quotients of numbers of few bits often lie exactly halfway, where a kernel's rounding decides.
    assert free / elements < (1e-4 if dtype == "float32" else 1e-2)
    if dtype != "float32" or form == "int8":
        assert flipped > 0


def test_wrong_rounding_leaves_the_budget_of_nearly_every_row():
    x = draw(5)
    codes = expected(budget(QUANTIZE, {"x": x}, CONTRACTS["float32"])[0], "float64")
    wrong = np.trunc(dividing(x, "int8")[0])
    assert (np.abs(wrong - codes.value) > codes.budget).any(axis=3).mean() > 0.99
    two_quanta = codes.value + np.where(codes.value > 0, -2, 2)
    assert (np.abs(two_quanta - codes.value) > codes.budget).all()


def test_a_tie_is_exact_under_a_scale_that_is_a_power_of_two():
    given = {"x": np.float32([[[[0.5, 1.5, 2.5, -2.5]]]]), "scales": np.float32([[[[1.0]]]])}
    (codes, _) = budget(QUANTIZE, given, CONTRACTS["float32"])
    np.testing.assert_array_equal(codes.value, [[[[0, 2, 2, -2]]]])
    assert (codes.full_error == 0).all()


def test_arguments_that_do_not_fit_are_named():
    x = draw(6)
    with pytest.raises(OptionError, match="granularity='row', but should be one of token, tensor, channel, block"):
        QUANTIZE(x, granularity="row")
    with pytest.raises(OptionError, match="scales.*=0.0, but should be a finite number above 0"):
        QUANTIZE(x, granularity="tensor", scales=np.zeros((1, 1, 1, 1)))
    with pytest.raises(ShapeError, match="scales has n=3, but should have n=11"):
        DEQUANTIZE(x, np.ones((2, 3, 3, 1)), granularity="block", block_size=2)


def test_ml_dtypes_has_the_formats_by_the_names_of_the_option():
    for form in LARGEST:
        if form != "int8":
            assert float(ml_dtypes.finfo(form).max) == LARGEST[form]


def stored_bytes(width, form):
    """Bytes of a row of a head with its scales, as the outputs of the methods have them."""
    row = np.ones((1, 1, 1, width))
    if form == "bfloat16":
        return 2 * width
    if form in ("mxfp4", "nvfp4"):
        codes, scales, _ = METHODS["quantize_microscaling"](row, format=form)
        return codes.size // 2 + scales.size
    codes, scales = QUANTIZE(row, format=form)
    return codes.size + (4 * scales.size if form == "int8" else 0)


CACHES = [("multi-head", 64, 128), ("grouped-query", 16, 128), ("multi-query", 2, 128), ("MLA", 1, 576)]


@pytest.mark.parametrize(("name", "rows", "width"), CACHES)
def test_the_document_has_the_bytes_of_a_cache(name, rows, width):
    table = Path(__file__).parents[2].joinpath("docs", "quantisation.md").read_text()
    bytes_of = [rows * stored_bytes(width, form) for form in ("bfloat16", "float8_e4m3fn", "int8", "nvfp4", "mxfp4")]
    assert f"| {name} | {' | '.join(map(str, bytes_of))} |" in table
