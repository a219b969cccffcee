"""Microscaling formats: the rules of their scales on worked examples, and the round trip."""

import numpy as np
import pytest

from oracle import METHODS, OptionError, ShapeError
from oracle.microscaling import MICROSCALING
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS

QUANTIZE, DEQUANTIZE = METHODS["quantize_microscaling"], METHODS["dequantize_microscaling"]
EXPONENT = {"mxfp4": 2, "mxfp8_e4m3": 8, "mxfp8_e5m2": 15}


def rows(*numbers):
    return np.array(numbers, dtype=np.float64)[None, None]


def draw(seed, width=72):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((2, 2, 9, width)) * 10.0 ** rng.uniform(-2, 2, (2, 2, 9, 1))).astype(np.float32)


def test_the_scale_of_a_block_is_that_of_the_exponents():
    codes, scales, tensor_scale = QUANTIZE(rows([7.9, 0.5, -3.0, 1.0], [4.0, 5.0, 0.24, 0.25], [0.0, 0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(scales[0, 0, :, 0], [1.0, 1.0, 2.0**-127])
    # 7.9 is beyond the largest element and saturates; 5 lies halfway between 4 and 6, 0.25 between 0 and 0.5: to even.
    np.testing.assert_array_equal(codes[0, 0], [[6, 0.5, -3, 1], [4, 4, 0, 0], [0, 0, 0, 0]])
    assert tensor_scale == 1


def test_nvfp4_has_two_levels_of_scales():
    x = rows([6.0 * 448 * 2, 0.0], [6.0 * 2, 3.0 * 2], [0.0, 0.0])
    codes, scales, tensor_scale = QUANTIZE(x, format="nvfp4")
    assert tensor_scale == 2
    np.testing.assert_array_equal(scales[0, 0, :, 0], [448, 1, 0])
    np.testing.assert_array_equal(codes[0, 0], [[6, 0], [6, 3], [0, 0]])


@pytest.mark.parametrize("form", MICROSCALING)
def test_each_block_follows_its_own_largest(form):
    x, kind = draw(0).astype(np.float64), MICROSCALING[form]
    codes, scales, tensor_scale = QUANTIZE(x, format=form)
    assert scales.shape == (2, 2, 9, -(-72 // kind.size))
    for index in np.ndindex(scales.shape):
        *row, block = index
        own = x[tuple(row)][block * kind.size : (block + 1) * kind.size]
        if form == "nvfp4":
            wanted = kind.scale.nearest(np.abs(own).max() / 6 / tensor_scale[0])
        else:
            wanted = 2.0 ** (np.floor(np.log2(np.abs(own).max())) - EXPONENT[form])
        assert scales[index] == wanted
        got = codes[tuple(row)][block * kind.size : (block + 1) * kind.size]
        np.testing.assert_array_equal(got, kind.element.nearest(own / (wanted * tensor_scale[0])))
    back = DEQUANTIZE(codes, scales, tensor_scale=tensor_scale, format=form)
    assert np.linalg.norm(back - x) < 0.15 * np.linalg.norm(x)


@pytest.mark.parametrize("form", MICROSCALING)
def test_values_lie_in_their_enclosure(form):
    given = {"x": draw(1)[:1, :1, :3, :34], "format": form}
    for got, exact in zip(value(QUANTIZE, given), enclosure(QUANTIZE, given), strict=True):
        assert (np.abs(got - midpoints(exact)) <= radii(exact) + 1e-14 * np.abs(got)).all()


@pytest.mark.parametrize("form", MICROSCALING)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_kernels_in_float32_stay_within_the_budget(form, dtype):
    kind, free, elements = MICROSCALING[form], 0, 0
    for seed in range(10):
        x = draw(seed, 64).astype(dtype)
        codes, scales, tensor_scale = (expected(bound, "float64") for bound in budget(QUANTIZE, {"x": x, "format": form}, CONTRACTS[dtype]))
        blocks = x.astype(np.float32).reshape(*x.shape[:3], -1, kind.size)
        largest = np.abs(blocks).max(axis=-1)
        if form == "nvfp4":
            whole = largest.max() * np.float32(1 / (6 * 448))
            own = kind.scale.nearest(largest * np.float32(1 / 6) / whole)
            assert np.abs(whole - tensor_scale.value) <= tensor_scale.budget
            factors = own * whole
        else:
            own = factors = np.exp2(np.frexp(largest)[1] - 1 - EXPONENT[form]).astype(np.float32)
        inverse = np.divide(1, factors, out=np.zeros_like(factors), where=factors > 0)
        got = kind.element.nearest(blocks * inverse[..., None]).reshape(x.shape)
        assert (np.abs(own - scales.value) <= scales.budget).all()
        assert (np.abs(got - codes.value) <= codes.budget).all()
        free += (codes.budget > 0.01).sum()
        elements += x.size
    assert free == 0 if form != "nvfp4" else free / elements < 0.01


def test_a_scale_that_is_rounded_up_leaves_the_budget():
    x = draw(2, 64)
    scales = expected(budget(QUANTIZE, {"x": x}, CONTRACTS["float32"])[1], "float64")
    assert (2 * scales.value - scales.value > scales.budget).all()


def test_arguments_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="d=7, n=1, u=1, but should satisfy .*: two elements of FP4 share a byte"):
        QUANTIZE(draw(3, 7))
    with pytest.raises(OptionError, match="format='mxfp6', but should be one of mxfp4, mxfp8_e4m3, mxfp8_e5m2, nvfp4"):
        QUANTIZE(draw(3), format="mxfp6")
    with pytest.raises(ShapeError, match="scales has n=2, but should have n=3"):
        DEQUANTIZE(draw(3), np.ones((2, 2, 9, 2)))
