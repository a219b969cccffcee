"""The speed of decoding with drafts: closed forms, limits, and what is refused."""

import pytest

from oracle import OptionError
from oracle.decoding_speed import expected_tokens, speed_up


@pytest.mark.parametrize("acceptance", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("drafted", [0, 1, 4, 16])
def test_expected_tokens_are_those_of_equation_1(acceptance, drafted):
    closed = (1 - acceptance ** (drafted + 1)) / (1 - acceptance)
    assert expected_tokens(acceptance, drafted) == pytest.approx(closed, rel=1e-12)


def test_limits():
    assert (expected_tokens(0, 4), expected_tokens(1, 4)) == (1, 5)
    assert speed_up(0.8, 0, 0.3) == 1
    # 1 + 0.6 + 0.36 tokens for a pass and two tokens of the draft model.
    assert speed_up(0.6, 2, 0.05) == pytest.approx(1.96 / 1.1)


def test_drafts_as_dear_as_decoding_never_pay():
    assert all(speed_up(a / 10, g, 1.0) <= 1 for a in range(11) for g in range(6))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((1.1, 2, 0.1), r"acceptance=1.1, but should be within \[0, 1\]"),
        ((float("nan"), 2, 0.1), "acceptance=nan"),
        ((0.5, -1, 0.1), "drafted=-1, but should be an integer >= 0"),
        ((0.5, 2, -0.1), "cost=-0.1, but should be at least 0"),
    ],
)
def test_what_is_out_of_range_is_refused(given, words):
    with pytest.raises(OptionError, match=words):
        speed_up(*given)
