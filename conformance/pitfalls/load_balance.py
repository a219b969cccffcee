"""Mistakes of what measures the balance of experts: the loss of Switch, and the coefficient of variation.

Shapes: T tokens, E experts, k of which a token chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps

__all__ = ["SwitchLoss", "Variation"]

SWITCH = "Fedus et al. 2021, eq. 4 to 6, arXiv:2101.03961"
SHAZEER = "Shazeer et al. 2017, eq. 6 to 11, arXiv:1701.06538"


class SwitchLoss(Steps):
    """E times the sum of f_i P_i."""

    methods: ClassVar[tuple[str, ...]] = ("switch_load_balance_loss",)
    citation: ClassVar[str] = SWITCH

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.fraction_of = arguments.get("fraction", "of-assignments")
        self.p, self.indices = arguments["probabilities"], arguments["indices"]
        self.tokens, self.experts = self.p.shape

    def facts(self) -> dict[str, Any]:
        """Dimensions, and of what fractions are."""
        return {"l": self.tokens, "x": self.experts, "c": self.indices.shape[1], "fraction": self.fraction_of, "dtype": self.setting.dtype}

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.indices.size > 0 and self.experts > 1 and super().applies()

    def counts(self) -> Array:
        """Assignments of every expert, (E,)."""
        return np.bincount(self.indices.ravel(), minlength=self.experts).astype(self.dtype)

    def assignments(self) -> int:
        """What counts are divided by."""
        return max(self.indices.size if self.fraction_of == "of-assignments" else self.tokens, 1)

    def fractions(self) -> Array:
        """f, (E,)."""
        return self.counts() / self.dtype.type(self.assignments())

    def means(self) -> Array:
        """P, (E,)."""
        return self.p.sum(axis=0) / self.dtype.type(max(self.tokens, 1))

    def factor(self) -> float:
        """What the sum is multiplied by."""
        return self.experts

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        return (np.asarray((self.fractions() * self.means()).sum() * self.dtype.type(self.factor()), dtype=self.dtype),)


class ProbabilitiesTwice(SwitchLoss):
    name = "probabilities-where-counts-belong"
    explanation = "f is taken from the mean probabilities too, not from counts: E times the sum of P_i squared."
    occasional = True

    def fractions(self) -> Array:
        return super().means() * self.dtype.type(1 if self.fraction_of == "of-assignments" else self.indices.shape[1])


class CountsTwice(SwitchLoss):
    name = "counts-where-probabilities-belong"
    explanation = "P is taken from counts too, which have no gradient: E times the sum of f_i squared."
    occasional = True

    def means(self) -> Array:
        return self.counts() / self.dtype.type(self.indices.size)


class ChosenProbabilitiesOnly(SwitchLoss):
    name = "probabilities-of-chosen-only"
    explanation = "P_i adds up only the probabilities of tokens that went to expert i; eq. 6 takes all tokens."
    occasional = True

    def means(self) -> Array:
        chosen = np.zeros(self.p.shape, dtype=bool)
        np.put_along_axis(chosen, self.indices, True, axis=1)
        return np.where(chosen, self.p, 0).sum(axis=0) / self.dtype.type(self.tokens)


class FirstChoiceOnly(SwitchLoss):
    name = "first-choice-only"
    explanation = "Only the first expert of every token counts (GShard), although it chose several."
    citation = "Lepikhin et al. 2020, algorithm 1, arXiv:2006.16668"
    needs = "c > 1"
    occasional = True

    def counts(self) -> Array:
        first = np.bincount(self.indices[:, 0], minlength=self.experts).astype(self.dtype)
        return first * self.dtype.type(self.indices.shape[1] if self.fraction_of == "of-assignments" else 1)


class FractionOfTokens(SwitchLoss):
    name = "counts-over-tokens"
    explanation = "Counts are divided by the number of tokens, not of assignments: the loss is k times as large."
    needs = "c > 1 and fraction == 'of-assignments'"

    def assignments(self) -> int:
        return self.tokens


class FractionOfAssignments(SwitchLoss):
    name = "counts-over-assignments"
    explanation = "Counts are divided by the number of assignments where fractions of tokens are declared: k times too small."
    needs = "c > 1 and fraction == 'of-tokens'"

    def assignments(self) -> int:
        return self.indices.size


class NotTimesExperts(SwitchLoss):
    name = "not-times-number-of-experts"
    explanation = "The sum is not multiplied by the number of experts, so that it falls as there are more of them."

    def factor(self) -> float:
        return 1.0


class SquaredExperts(SwitchLoss):
    name = "mean-over-experts-without-factor"
    explanation = "The mean of the products over the experts is returned; the loss is E^2 times that."

    def factor(self) -> float:
        return 1.0 / self.experts


class TokenByToken(SwitchLoss):
    name = "products-of-tokens-averaged"
    explanation = "f and P are multiplied token by token and then averaged; the loss multiplies the two means."
    needs = "l > 1"
    occasional = True

    def outputs(self) -> tuple[Array, ...]:
        hot = np.zeros(self.p.shape, self.dtype)
        for place in self.indices.T:
            hot[np.arange(self.tokens), place] += self.dtype.type(self.tokens / self.assignments())
        return (np.asarray((hot * self.p).sum() * self.dtype.type(self.experts / self.tokens), dtype=self.dtype),)


class VariationForLoss(SwitchLoss):
    name = "variation-where-switch-loss"
    explanation = "The squared coefficient of variation of the counts (Shazeer et al. 2017) stands for the loss of Switch."
    citation = SHAZEER

    def outputs(self) -> tuple[Array, ...]:
        counts = self.counts()
        return (np.asarray(counts.var() / counts.mean() ** 2, dtype=self.dtype),)


class LastExpertLost(SwitchLoss):
    name = "experts-up-to-the-largest-index"
    explanation = "Only experts up to the largest index that occurs are counted, and E is taken from there."
    occasional = True

    def factor(self) -> float:
        return float(self.indices.max()) + 1


class Variation(Steps):
    """The standard deviation over the mean."""

    methods: ClassVar[tuple[str, ...]] = ("load_balance_cv",)
    citation: ClassVar[str] = SHAZEER

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.loads = arguments["loads"]

    def facts(self) -> dict[str, Any]:
        """The number of experts, and whether any has a load."""
        return {"x": self.loads.size, "used": lambda: bool((self.loads > 0).any()), "dtype": self.setting.dtype}

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.loads.size > 0 and super().applies()

    def mean(self) -> Array:
        """Of the loads."""
        return self.loads.mean()

    def variance(self) -> Array:
        """Of the loads."""
        return ((self.loads - self.loads.mean()) ** 2).sum() / self.dtype.type(self.loads.size)

    def quotient(self) -> Array:
        """What is returned where there is a load."""
        return np.sqrt(self.variance()) / self.mean()

    def unused(self) -> float:
        """What is returned where there is none."""
        return 0.0

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        return (np.asarray(self.quotient() if (self.loads > 0).any() else self.unused(), dtype=self.dtype),)


class Squared(Variation):
    name = "variation-squared"
    explanation = "The square of the coefficient of variation is returned: the loss of Shazeer et al., not the coefficient."
    needs = "used and x > 1"
    occasional = True

    def quotient(self) -> Array:
        return self.variance() / self.mean() ** 2


class Unbiased(Variation):
    name = "variance-over-one-less"
    explanation = "The variance is divided by E - 1, as torch.std does by default."
    citation = "torch.std, correction=1"
    needs = "used and x > 1"
    occasional = True

    def variance(self) -> Array:
        return ((self.loads - self.loads.mean()) ** 2).sum() / self.dtype.type(self.loads.size - 1)


class OnePass(Variation):
    name = "variance-as-difference-of-squares"
    explanation = "The variance is the mean square less the square of the mean, which cancels where loads are large and alike."
    citation = "Chan, Golub and LeVeque 1983, Am. Stat. 37(3), 242"
    needs = "used and x > 1"

    def variance(self) -> Array:
        return np.maximum((self.loads**2).mean() - self.loads.mean() ** 2, 0)


class NoMean(Variation):
    name = "deviation-not-divided-by-mean"
    explanation = "The standard deviation itself is returned."
    needs = "used and x > 1"
    occasional = True

    def mean(self) -> Array:
        return self.dtype.type(1)


class OverSum(Variation):
    name = "deviation-over-sum"
    explanation = "The standard deviation is divided by the sum of the loads instead of their mean."
    needs = "used and x > 1"
    occasional = True

    def mean(self) -> Array:
        return self.loads.sum()


class UnusedGivesNan(Variation):
    name = "nan-without-loads"
    explanation = "Where no expert gets anything, 0 / 0 is returned."
    needs = "not used"

    def unused(self) -> float:
        return np.nan


class AbsoluteDeviation(Variation):
    name = "mean-absolute-deviation"
    explanation = "The mean absolute deviation stands for the standard deviation."
    needs = "used and x > 1"
    occasional = True

    def quotient(self) -> Array:
        return np.abs(self.loads - self.loads.mean()).mean() / self.mean()


class LargestOverMean(Variation):
    name = "largest-over-mean"
    explanation = "The largest load over the mean, less 1, is returned: another measure of imbalance."
    needs = "used and x > 1"
    occasional = True

    def quotient(self) -> Array:
        return self.loads.max() / self.mean() - 1
