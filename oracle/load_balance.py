"""How evenly experts are used: the loss that makes it even, the coefficient of variation, and the room that each expert has.

Shapes: T tokens, E experts, k of which a token chooses.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.features import is_positive
from oracle.readings.ops import square_root

__all__ = ["expert_capacity", "load_balance_cv", "switch_load_balance_loss"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings


@method(
    source="Fedus et al. 2021, eq. 4 to 6, arXiv:2101.03961",
    shapes="probabilities: l x, indices: int l c -> loss: statistic",
    conventions={"fraction": ("of-assignments", "of-tokens")},
    domains={"probabilities": "probability", "indices": "index x"},
    cost="4 * l * x",
)
def switch_load_balance_loss(probabilities: Array, indices: np.ndarray, *, fraction: str = "of-assignments") -> Array:
    """E times the sum over experts of f_i P_i: 1 where tokens and probabilities are spread evenly.

    f_i is the fraction of assignments that went to expert i, whatever their probabilities; P_i is the mean over all tokens of
    the probability of expert i, whether they went there or not (eq. 5 and 6). The factor alpha of eq. 4 is left to the caller.
    0 without tokens.

    Args:
        probabilities: of the router, over all experts (T, E).
        indices: the experts that each token chose (T, k).
        fraction: ``of-tokens``: f_i is the number of tokens that chose expert i over the number of tokens, so that the f_i add
            up to k (as in Hugging Face's Mixtral); the same where k is 1, as in Switch.

    Returns:
        One number.

    Raises:
        OptionError: an index is out of range, or probabilities are none.
    """
    tokens, experts = probabilities.shape
    counts = np.bincount(indices.ravel(), minlength=experts).astype(np.float64)
    assignments = indices.size if fraction == "of-assignments" else tokens
    mean = np.sum(probabilities, axis=0) / max(tokens, 1)
    return np.sum(mean * counts / max(assignments, 1)) * experts


@method(
    source="Shazeer et al. 2017, eq. 6 to 11, arXiv:1701.06538",
    shapes="loads: x -> cv: statistic",
    domains={"loads": "nonnegative"},
)
def load_balance_cv(loads: Array) -> Array:
    """The coefficient of variation of what experts get: the standard deviation over the mean; 0 is even.

    The deviation of all experts (divided by E, not by E - 1), not its square, which is what the losses of Shazeer et al. add.
    0 where no expert gets anything.

    Args:
        loads: numbers of tokens, or sums of weights, of each expert (E,), at least 0.

    Returns:
        One number.

    Raises:
        OptionError: a load is negative, NaN or infinite.
    """
    experts = loads.shape[0]
    mean = np.sum(loads, axis=0) / experts
    deviations = loads - mean
    deviation = square_root(np.sum(deviations * deviations, axis=0) / experts)
    used = is_positive(mean)
    return np.where(used, deviation / np.where(used, mean, 1.0), 0.0)


@method(
    source="Fedus et al. 2021, eq. 3, arXiv:2101.03961; Lepikhin et al. 2020, section 2.2, arXiv:2006.16668",
    shapes="-> capacity: int",
    options={"tokens": "count", "experts": "size", "k": "size", "capacity_factor": "positive", "min_capacity": "count"},
    conventions={"rounding": ("up", "down")},
    domains={},
)
def expert_capacity(
    *, tokens: int, experts: int, k: int = 1, capacity_factor: float = 1.0, min_capacity: int = 0, rounding: str = "up"
) -> np.ndarray:
    """How many assignments each expert has room for: tokens * k / experts * capacity_factor, rounded up, and at least min_capacity.

    The product is exact where the factor is a fraction of a power of two, such as 1.25; of others, such as 1.1, the double that
    stands for it counts.

    Args:
        tokens: that are routed together.
        experts: that they are routed to.
        k: experts that each token chooses.
        capacity_factor: 1 leaves just as much room as even routing needs.
        min_capacity: the least room of an expert.
        rounding: ``down``: a fraction of a place is no place (Switch in Mesh TensorFlow).

    Returns:
        One integer.

    Raises:
        OptionError: an option is missing or out of range.
    """
    share = Fraction(tokens * k, experts) * Fraction(capacity_factor)
    return np.asarray(max(ceil(share) if rounding == "up" else floor(share), min_capacity), dtype=np.int64)
