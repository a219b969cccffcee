"""How much faster decoding with drafts is: Leviathan et al. 2023, arXiv:2211.17192, equation 1 and theorem 3.8."""

from __future__ import annotations

from oracle.options import OptionError

__all__ = ["expected_tokens", "speed_up"]


def expected_tokens(acceptance: float, drafted: int) -> float:
    """Tokens that a round gives on average: (1 - a^(g+1)) / (1 - a), g + 1 where a is 1.

    Args:
        acceptance: a, the probability that a drafted token is kept, the same for each whatever came before.
        drafted: g, tokens that a round drafts.

    Raises:
        OptionError: a is not within [0, 1], or g below 0.
    """
    if not 0 <= acceptance <= 1:
        raise OptionError(f"acceptance={acceptance}, but should be within [0, 1] [expected_tokens]")
    if drafted < 0:
        raise OptionError(f"drafted={drafted}, but should be an integer >= 0 [expected_tokens]")
    return float(sum(acceptance**kept for kept in range(drafted + 1)))  # which no 1 - a cancels


def speed_up(acceptance: float, drafted: int, cost: float) -> float:
    """How many times as fast a round's tokens come: expected tokens over 1 + g c.

    Args:
        acceptance, drafted: of `expected_tokens`.
        cost: c, the time of a token of the draft model over that of a pass of the target, which checks all drafted tokens at once.

    Raises:
        OptionError: c is below 0, or see `expected_tokens`.
    """
    if cost < 0:
        raise OptionError(f"cost={cost}, but should be at least 0 [speed_up]")
    return expected_tokens(acceptance, drafted) / (1 + drafted * cost)
