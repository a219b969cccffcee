"""Mistakes of the norm that differential attention takes of every head."""

from __future__ import annotations

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.differential import Differential

HEAD_NORM = "Ye et al. 2024, eq. 3, arXiv:2410.05258"


class LambdaInitForLambda(Differential):
    name = "lambda-init-for-lambda"
    explanation = "lam_init of the second attention is taken away, not lam of it."
    citation = HEAD_NORM
    needs = "lam_init is not None and lam_init != lam"

    def part(self) -> float:
        return float(super().part() if self.lam_init is None else self.lam_init)


class NormForgotten(Differential):
    name = "head-norm-forgotten"
    explanation = "The rows are multiplied by 1 - lam_init but not normalised."
    citation = HEAD_NORM
    needs = "lam_init is not None"

    def divisor(self, out: Array) -> Array:
        return np.ones_like(out[..., :1])


class GainForgotten(Differential):
    name = "norm-gain-forgotten"
    explanation = "Normalised rows are not multiplied by 1 - lam_init."
    citation = HEAD_NORM
    needs = "lam_init is not None and lam_init != 0"

    def gain(self) -> float:
        return 1.0


class GainIsLambda(Differential):
    name = "norm-gain-from-lambda"
    explanation = "Normalised rows are multiplied by 1 - lam instead of 1 - lam_init."
    citation = HEAD_NORM
    needs = "lam_init is not None and lam_init != lam"

    def gain(self) -> float:
        return 1 - self.part()


class GainIsInit(Differential):
    name = "norm-gain-not-complemented"
    explanation = "Normalised rows are multiplied by lam_init instead of 1 - lam_init."
    citation = HEAD_NORM
    needs = "lam_init is not None"

    def gain(self) -> float:
        return float(self.lam_init or 0.0)


class NormOverHeads(Differential):
    name = "norm-over-all-heads"
    explanation = "The mean square is taken over all heads of a token instead of each head by itself."
    citation = HEAD_NORM
    needs = "lam_init is not None and h > 1"

    def mean_square(self, out: Array) -> Array:
        return (out * out).mean(axis=(1, 3), keepdims=True)


class NormCentred(Differential):
    name = "norm-subtracts-mean"
    explanation = "A layer norm, which subtracts the mean of a row, stands for the root mean square norm."
    citation = HEAD_NORM
    needs = "lam_init is not None"

    def normalised(self, out: Array) -> Array:
        return super().normalised(out if self.lam_init is None else out - out.mean(axis=-1, keepdims=True))


class NormOfSum(Differential):
    name = "norm-by-sum-of-squares"
    explanation = "Rows are divided by their length instead of their root mean square."
    citation = HEAD_NORM
    needs = "lam_init is not None and e > 1"

    def mean_square(self, out: Array) -> Array:
        return (out * out).sum(axis=-1, keepdims=True)


class EpsOutside(Differential):
    name = "eps-outside-root"
    explanation = "eps is added to the root instead of the mean square."
    citation = "Zhang and Sennrich 2019, eq. 4, arXiv:1910.07467"
    needs = "lam_init is not None"

    def divisor(self, out: Array) -> Array:
        return np.sqrt(self.mean_square(out)) + self.dtype.type(self.eps)


class EpsIgnored(Differential):
    name = "eps-option-ignored"
    explanation = "The option `eps` has no effect: 1e-5 is added whatever it is."
    citation = "Zhang and Sennrich 2019, eq. 4, arXiv:1910.07467"
    needs = "lam_init is not None and eps != 1e-05"

    def divisor(self, out: Array) -> Array:
        return np.sqrt(self.mean_square(out) + self.dtype.type(1e-5))
