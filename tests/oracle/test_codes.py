"""The formats of a few bits, against ml_dtypes: every code, and every number at, between and just beside two codes."""

import ml_dtypes
import numpy as np
import pytest

from oracle.codes import CODE_FORMATS, pack, unpack

FLOATS = ("float8_e4m3fn", "float8_e5m2", "float4_e2m1fn")


def all_codes(form):
    return np.arange(2**form.bits, dtype=np.uint8)


@pytest.mark.parametrize("name", [*FLOATS, "float8_e8m0fnu", "int8"])
def test_every_code_stands_for_the_number_that_ml_dtypes_has(name):
    form = CODE_FORMATS[name]
    theirs = all_codes(form).view(getattr(ml_dtypes, name, name)).astype(np.float64)
    np.testing.assert_array_equal(form.decode(all_codes(form)), theirs)
    np.testing.assert_array_equal(np.signbit(form.table), np.signbit(theirs))


@pytest.mark.parametrize("name", [*FLOATS, "int8"])
def test_every_finite_number_is_encoded_as_itself(name):
    form = CODE_FORMATS[name]
    codes = all_codes(form)[np.isfinite(form.table)]
    if name == "int8":
        codes = codes[form.decode(codes) != -128]  # which a symmetric quantiser does not use
    np.testing.assert_array_equal(form.encode(form.decode(codes)), codes)
    np.testing.assert_array_equal(form.nearest(form.decode(codes)), form.decode(codes))


def telling_numbers(form):
    """All finite numbers, those halfway between two of them, and the neighbours of both in float32."""
    finite = np.unique(form.table[np.isfinite(form.table)])
    halfway = (finite[1:] + finite[:-1]) / 2
    numbers = np.concatenate([finite, halfway]).astype(np.float32)
    return np.concatenate([numbers, np.nextafter(numbers, np.float32(np.inf)), np.nextafter(numbers, np.float32(-np.inf))])


@pytest.mark.parametrize("name", FLOATS)
def test_numbers_are_rounded_to_nearest_even_as_ml_dtypes_does(name):
    form = CODE_FORMATS[name]
    numbers = telling_numbers(form)
    numbers = numbers[np.abs(numbers) <= form.largest]
    theirs = numbers.astype(getattr(ml_dtypes, name))
    np.testing.assert_array_equal(form.nearest(numbers), theirs.astype(np.float32))
    np.testing.assert_array_equal(form.encode(numbers), theirs.view(np.uint8))
    wide = form.nearest(numbers.astype(np.longdouble))
    assert wide.dtype == np.longdouble
    np.testing.assert_array_equal(wide, theirs.astype(np.longdouble))


def test_integers_are_rounded_to_nearest_even():
    form, numbers = CODE_FORMATS["int8"], telling_numbers(CODE_FORMATS["int8"])
    want = np.clip(np.rint(numbers), -127, 127)
    np.testing.assert_array_equal(form.nearest(numbers), want)
    np.testing.assert_array_equal(form.encode(numbers).view(np.int8), want)
    assert form.nearest(np.array(2.5)) == 2
    assert form.nearest(np.array(-3.5)) == -4


@pytest.mark.parametrize("name", [*FLOATS, "int8"])
def test_what_is_too_large_saturates(name):
    form = CODE_FORMATS[name]
    far = np.array([1.01 * form.largest, 1e30, np.inf])
    np.testing.assert_array_equal(form.nearest(far), form.largest)
    np.testing.assert_array_equal(form.decode(form.encode(-far)), -form.largest)


def test_nan_has_a_code_where_the_format_has_one():
    for name in ("float8_e4m3fn", "float8_e5m2"):
        assert np.isnan(CODE_FORMATS[name].decode(CODE_FORMATS[name].encode(np.array([np.nan])))).all()
    assert CODE_FORMATS["int8"].encode(np.array([np.nan])) == 0


@pytest.mark.parametrize("name", [*FLOATS, "float8_e8m0fnu"])
def test_the_constants_are_those_of_ml_dtypes(name):
    form, info = CODE_FORMATS[name], ml_dtypes.finfo(name)
    assert form.largest == float(info.max)
    if form.mantissa:
        assert (form.smallest_normal, form.smallest) == (float(info.smallest_normal), float(info.smallest_subnormal))
        assert form.unit_roundoff == float(info.eps) / 2


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8])
def test_two_nibbles_share_a_byte_the_first_in_its_low_half(count):
    codes = np.arange(2 * count, dtype=np.uint8).reshape(2, count) % 16
    stored = pack(codes)
    assert stored.shape == (2, -(-count // 2))
    np.testing.assert_array_equal(unpack(stored, count), codes)
    if count >= 2:
        assert stored[0, 0] == codes[0, 0] + 16 * codes[0, 1]


def test_all_bytes_of_packed_codes_are_unpacked():
    stored = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(pack(unpack(stored, 512)), stored)
