"""Precision contracts: how a correct implementation is allowed to compute.

A contract turns "this kernel accumulates in float32 and stores in bfloat16" into the unit roundoffs that the budget
reading propagates. The constants of the analysis live here and nowhere else, each with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oracle.codes import CODE_FORMATS, CodeFormat
from oracle.formats import FORMATS, TF32_UNIT_ROUNDOFF, Format

__all__ = ["CONTRACTS", "PrecisionContract", "contract_for"]

# Higham & Mary 2019 (SIAM J. Sci. Comput. 41(5), A2815), theorem 2.4: the rounding errors of n operations amount to at
# most lambda*sqrt(n)*u, except with a probability of about 2*exp(-lambda**2/2) for each n, when they are independent.
# When they are not, n*u holds for sums and inner products to nearest without any second-order term, however large n is
# (Jeannerod & Rump 2013, SIAM J. Matrix Anal. Appl. 34(2), 338).
LAMBDA = 4.0

# A kernel may fold the scale, its square root or log2(e) into an operand of the product before it: at most a rounding of
# the constant and one of the product for either operand.
FOLDED_ROUNDINGS = 4

# CUDA's expf and exp2f and the vector libraries of CPUs stay within 2 units in the last place, a unit being two roundoffs.
EXP_ROUNDOFFS = 4

# tanh(x) as 1 - 2 / (exp(2x) + 1), as kernels without a tanh form it, by a rounded reciprocal: at worst (x near -1) 1.7
# roundoffs of 1 come from the exponential, 5.3 from the quotient and 0.8 from the difference. Absolute, not relative.
TANH_ROUNDOFFS = 8

# cosf and sinf of CUDA and of the vector libraries stay within 2 units in the last place, relative to a result of at most 1.
TRIGONOMETRIC_ROUNDOFFS = 4

# The perturbed reading: with 16 samples an estimated standard deviation falls below half of the true one with a probability
# of 1e-3 (chi-square of 16 degrees of freedom below 4), even before it is pooled with others, and then LAMBDA still covers
# two of them.
INDEPENDENT_SAMPLES = 16

# One sample in which every result is too large, and some whose elements keep a sign each.
REPEATED_SAMPLES = 4

# A chunked kernel of gated recurrences forms exp(G_i - G_j) from the sums G of the log gates since its chunk began, which
# it rounds relative to their own size, however small the difference is. Kernels in use have chunks of 16 to 128 tokens
# (flash-linear-attention: 64).
GATE_REACH = 128


@dataclass(frozen=True)
class PrecisionContract:
    """The roundings that an implementation may commit.

    Attributes:
        name: of the preset.
        accumulate: format of sums, products, quotients and elementary functions.
        operand: unit roundoff of the narrower format to which an intermediate value may be rounded when it is fed to a
            second matrix product (the weights P); 0 where that is no narrower than the accumulation.
        operand_spacing: half the subnormal spacing of that format; 0 for none.
        output: format of the result.
        operand_largest: largest number of that format; inf for none.
        weight: unit roundoff of the format of at most 8 bits in which softmax weights are kept for their product with the values; 0 for
            none. They are rounded under the running maximum of a tile, where the largest is 1.
        weight_spacing: their absolute error at least, as a part of that largest weight; 0 for none.
        matmul_input: unit roundoff of the format in which a matrix unit reads both its operands (TF32); 0 for none.
        state: unit roundoff of the narrower format in which a recurrence keeps its state from token to token; 0 where that
            is no narrower than the accumulation.
        state_spacing: half the subnormal spacing of that format; 0 for none.
        state_largest: largest number of that format, or of the accumulation.
    """

    name: str
    accumulate: Format
    operand: float
    operand_spacing: float
    output: Format
    matmul_input: float = 0.0
    operand_largest: float = np.inf
    weight: float = 0.0
    weight_spacing: float = 0.0
    state: float = 0.0
    state_spacing: float = 0.0
    state_largest: float = np.inf

    @property
    def unit_roundoff(self) -> float:
        """Unit roundoff of the accumulation."""
        return self.accumulate.unit_roundoff

    @property
    def exp_error(self) -> float:
        """Relative error of an exponential or a logarithm."""
        return EXP_ROUNDOFFS * self.unit_roundoff

    @property
    def tanh_error(self) -> float:
        """Absolute error of a hyperbolic tangent."""
        return TANH_ROUNDOFFS * self.unit_roundoff

    @property
    def trigonometric_error(self) -> float:
        """Absolute error of a sine or a cosine, besides that of its angle."""
        return TRIGONOMETRIC_ROUNDOFFS * self.unit_roundoff

    @property
    def flush(self) -> float:
        """Absolute error of a result that may be flushed to zero instead of becoming subnormal.

        Float16 arithmetic keeps its subnormals: they are normal numbers of the float32 in which machines without it work.
        """
        return self.accumulate.smallest_subnormal if self.accumulate.name == "float16" else self.accumulate.smallest_normal

    def roundings(self, count: np.ndarray | float, alike: np.ndarray | float = 0.0) -> np.ndarray:
        """Relative error of ``count`` successive roundings, of which ``alike`` may all err in the same direction.

        Independent roundings grow like lambda*sqrt(count)*u. Those of terms that look alike to the machine repeat the
        same error, so for them only the worst case u for each holds (Higham & Mary 2019, section 5, shows such sums).
        """
        count = np.asarray(count, dtype=np.float64)
        likely = LAMBDA * np.sqrt(count) + alike
        return self.unit_roundoff * np.minimum(count, likely)

    def gamma(self, terms: np.ndarray | float, alike: np.ndarray | float = 0.0) -> np.ndarray:
        """Error of an inner product or sum of ``terms`` terms, relative to the sum of their magnitudes."""
        return self.roundings(np.asarray(terms) + FOLDED_ROUNDINGS, alike) + 2 * self.matmul_input

    def bias(self, value: np.ndarray) -> np.ndarray | float:
        """What an inner product may lose because a matrix unit cuts its operands off instead of rounding them.

        TF32 hardware ignores the low bits unless the program has rounded them: a relative error between 0 and two unit
        roundoffs, which is one unit roundoff for all alike, so that it shrinks the result, and one more of either sign,
        which `gamma` counts.
        """
        return 2 * self.matmul_input * np.abs(value) if self.matmul_input else 0.0


def _narrower(form: str, accumulation: Format) -> tuple[float, float]:
    """Unit roundoff and half the subnormal spacing of a format, or zeros where it is no narrower than the accumulation."""
    cast = FORMATS[form]
    return (cast.unit_roundoff, cast.smallest_subnormal / 2) if cast.unit_roundoff > accumulation.unit_roundoff else (0.0, 0.0)


def _coded_weights(form: CodeFormat) -> tuple[float, float]:
    """Unit roundoff of weights in a format of 8 bits, and their absolute error at least.

    Float8 holds weights between 0 and 1 as they are; an integer is scaled so that the largest number stands for 1.
    """
    return (form.unit_roundoff, form.smallest / 2) if form.exponent else (0.0, 0.5 / form.largest)


def _mixed(
    name: str,
    storage: str,
    *,
    operand: str | None = None,
    accumulate: str = "float32",
    matmul_input: float = 0.0,
    state: str | None = None,
    weights: str | None = None,
) -> PrecisionContract:
    accumulation = FORMATS[accumulate]
    # Weights that stay in the accumulation format take no rounding of their own: the one of normalising them before the
    # product is among the folded roundings, which that product has no other use for.
    cast = operand or storage
    rounding, spacing = _narrower(cast, accumulation)
    weight, weight_spacing = _coded_weights(CODE_FORMATS[weights]) if weights else (0.0, 0.0)
    kept, kept_spacing = _narrower(state or accumulate, accumulation)
    return PrecisionContract(
        name,
        accumulation,
        rounding,
        spacing,
        FORMATS[storage],
        matmul_input=matmul_input,
        operand_largest=FORMATS[cast].largest if rounding else np.inf,
        weight=weight,
        weight_spacing=weight_spacing,
        state=kept,
        state_spacing=kept_spacing,
        state_largest=(FORMATS[state] if state and kept else accumulation).largest,
    )


# From the tightest to the loosest within one storage format.
CONTRACTS = {
    contract.name: contract
    for contract in (
        _mixed("float64", "float64", accumulate="float64"),
        _mixed("float32", "float32"),
        _mixed("float32-float16-weights", "float32", operand="float16"),
        _mixed("float32-bfloat16-weights", "float32", operand="bfloat16"),
        _mixed("tf32", "float32", matmul_input=TF32_UNIT_ROUNDOFF),
        _mixed("float32-float8-weights", "float32", weights="float8_e4m3fn"),
        _mixed("float32-int8-weights", "float32", weights="int8"),
        _mixed("float16-float32-weights", "float16", operand="float32"),
        _mixed("float16", "float16"),
        _mixed("float16-float8-weights", "float16", weights="float8_e4m3fn"),
        _mixed("float16-int8-weights", "float16", weights="int8"),
        _mixed("float16-state", "float16", state="float16"),
        _mixed("float16-full", "float16", accumulate="float16"),
        _mixed("bfloat16-float32-weights", "bfloat16", operand="float32"),
        _mixed("bfloat16", "bfloat16"),
        _mixed("bfloat16-float8-weights", "bfloat16", weights="float8_e4m3fn"),
        _mixed("bfloat16-int8-weights", "bfloat16", weights="int8"),
        _mixed("bfloat16-state", "bfloat16", state="bfloat16"),
        _mixed("bfloat16-full", "bfloat16", accumulate="bfloat16"),
    )
}


def contract_for(name: str, dtype: str) -> PrecisionContract:
    """The contract called ``name``, checked to store its result in ``dtype``.

    Raises:
        ValueError: no such contract, or it stores another dtype.
    """
    fitting = [contract.name for contract in CONTRACTS.values() if contract.output.name == dtype]
    if name not in fitting:
        raise ValueError(f"contract={name!r}, but should be one of {', '.join(fitting)} [dtype={dtype}]")
    return CONTRACTS[name]
