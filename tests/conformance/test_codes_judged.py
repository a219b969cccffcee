"""Codes on their way from a worker to a verdict, and the figure of a method's own error beside it."""

import json

import numpy as np
import pytest

from conformance.accuracy import own_errors
from conformance.cases import parse_case
from conformance.cases.layouts import lay_out
from conformance.certify import Request, certify
from conformance.hunting.search import Effort
from conformance.isolation.codes import decoded, stored
from oracle import METHODS, attention
from oracle.codes import CODE_FORMATS

KERNELS = "tests/conformance/coded_kernels.py"


def certificate_of(function, method="quantize", restrict="", **request):
    restrictions = {restrict: "it has no other"} if restrict else {}
    effort = Effort(examples=60, diagnose=False)
    [certificate] = certify(
        Request((f"{KERNELS}:{function}",), method, "numpy", effort=effort, restrictions=restrictions, isolated=False, **request)
    )
    return certificate


@pytest.mark.parametrize("function", ["as_numbers", "as_bits"])
def test_float8_may_come_as_numbers_or_as_bit_patterns(function):
    certificate = certificate_of(function, restrict="format == 'float8_e4m3fn'")
    assert certificate.result is not None, certificate.error
    assert certificate.result.findings == []


def test_other_integers_are_no_codes():
    [(finding, _)] = certificate_of("as_int16", restrict="format == 'float8_e4m3fn'").result.findings
    assert finding.kind == "dtype"
    assert finding.message == "codes.dtype=int16, but should be float8_e4m3fn or uint8"


def test_the_code_of_nan_is_a_finding():
    [(finding, _)] = certificate_of("with_nan", restrict="format == 'float8_e4m3fn'").result.findings
    assert finding.kind == "nan"


def test_a_code_that_is_off_by_one_quantum_without_reason_is_a_finding():
    assert certificate_of("right").result.findings == []
    [(finding, _)] = certificate_of("one_quantum_off").result.findings
    assert finding.kind == "wrong-value"
    assert abs(finding.got - finding.expected) == 1
    assert finding.budget < 1e-12


def test_the_first_of_two_elements_is_in_the_low_nibble():
    certificate = certificate_of("low_nibble_first", "quantize_microscaling", "format == 'mxfp4'")
    assert certificate.result.findings == []
    assert "nibbles-swapped" in certificate.result.ruled_out
    [(finding, _)] = certificate_of("high_nibble_first", "quantize_microscaling", "format == 'mxfp4'").result.findings
    assert finding.kind == "wrong-value"


def test_fp4_is_packed_two_to_a_byte():
    [(finding, _)] = certificate_of("not_packed", "quantize_microscaling", "format == 'mxfp4' and d > 0").result.findings
    assert finding.kind == "shape"


@pytest.mark.parametrize("name", CODE_FORMATS)
def test_what_is_stored_is_decoded_to_what_it_was(name):
    form = CODE_FORMATS[name]
    numbers = form.table[np.isfinite(form.table)][:, None] * np.ones(3)
    if name == "int8":
        numbers = numbers[numbers[:, 0] != -128]
    np.testing.assert_array_equal(decoded(stored(numbers.astype(np.dtype(name)), form), form, numbers.shape), numbers)


def test_gaps_between_codes_hold_nan_where_there_is_one():
    for name in ("int8", "uint8", "float8_e4m3fn", "float8_e5m2"):
        base, view = lay_out(np.zeros((2, 3, 4), np.uint8).view(np.dtype(name)), "strided", None)
        assert (view.astype(np.float32) == 0).all()
        gaps = base.view(np.uint8)[base.view(np.uint8) != 0]
        assert gaps.size == 2 * 4 * 4
        numbers = gaps.view(np.dtype(name)).astype(np.float32)
        assert np.isnan(numbers).all() if "float8" in name else (numbers == 127).all()


def test_a_warm_up_that_would_not_fit_its_method_has_the_same_arrays():
    line = "fp8_attention float32 b=1 h=1 g=1 l={} s=3 d={} e=1 q=normal(0) k=normal(0) v=normal(0)"
    assert all("signs" not in parse_case(line.format(length, 3)).warm_up(("signs",)).arrays for length in range(1, 20))
    assert any("signs" in parse_case(line.format(length, 4)).warm_up(("signs",)).arrays for length in range(1, 20))


def test_a_certificate_tells_what_the_method_itself_costs():
    certificate = certificate_of("right")
    entry = json.loads(json.dumps(certificate.to_json()))
    [figure] = entry["own_error"]
    assert figure["against"] == "x"
    assert figure["case"].startswith("quantize float32 b=1 h=2 l=256 d=64")
    assert 0.004 < figure["relative_frobenius"] < 0.008
    assert 0.9999 < figure["cosine"] < 1
    assert 0 < figure["worst_element"] < figure["largest_element"] / 127


def test_own_errors_are_those_of_the_values_on_the_stated_case():
    figures = own_errors("sage_attention", "float32", ("format", "causal"))
    assert [("format=int8" in one.case, "format=nvfp4" in one.case) for one in figures] == [(True, False), (False, True)]
    given = parse_case(figures[0].case).arguments()
    exact = attention(given["q"], given["k"], given["v"])
    error = METHODS["sage_attention"](**given) - exact
    assert figures[0].relative_frobenius == pytest.approx(np.linalg.norm(error) / np.linalg.norm(exact))
    assert figures[0].worst_element == pytest.approx(np.abs(error).max())
    assert own_errors("attention", "float32", ("causal",)) == ()
