"""A machine that rounds: every NumPy operation on a `Rounded` array is carried out one rounded step at a time.

The third way to run a specification, beside the oracle's own: what a naive program in float32, float16 or bfloat16 would
compute. Sums and inner products add one term after another. Rounding is to nearest, or by the standard model
fl(x) = x * (1 + delta) with delta of either sign at random, or always upwards or downwards: the worst that a format may do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from oracle.formats import FORMATS
from oracle.readings.contract import CONTRACTS, EXP_ROUNDOFFS, TRIGONOMETRIC_ROUNDOFFS

CONTRACT_OF = {"float32": CONTRACTS["float32"], "float16": CONTRACTS["float16-full"], "bfloat16": CONTRACTS["bfloat16-full"]}
DIRECTIONS = {"up": 1.0, "down": -1.0}
INSIDE = 1 - 2.0**-20  # delta stays a hair inside the model, for float64 to tell the difference


@dataclass
class Machine:
    """How to compute.

    Attributes:
        name: of the format.
        rounding: nearest, random, up or down.
        fused: a product is added without being rounded first.
        exponentials: "direct", or "base 2": exp, log and tanh by way of exp2, log2 and exp, as kernels form them.
        reciprocals: a quotient is a product with a rounded reciprocal.
    """

    name: str
    rounding: str = "nearest"
    fused: bool = False
    exponentials: str = "direct"
    reciprocals: bool = False
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def contract(self):
        return CONTRACT_OF[self.name]

    def stored(self, values):
        """The nearest numbers of the format, in float64."""
        with np.errstate(over="ignore"):
            return np.asarray(values, np.float64).astype(FORMATS[self.name].dtype).astype(np.float64)

    def lift(self, values):
        return Rounded(self.stored(values), self)

    def round(self, exact, roundoffs=1.0):
        """One rounding of an exact result; ``roundoffs``: how far off an elementary function may be instead."""
        if self.rounding == "nearest":
            return self.stored(exact)
        unit = INSIDE * roundoffs * FORMATS[self.name].unit_roundoff
        delta = DIRECTIONS.get(self.rounding)
        with np.errstate(invalid="ignore"):
            return exact * (1 + unit * (self.rng.choice([-1.0, 1.0], np.shape(exact)) if delta is None else delta))

    def add(self, a, b):
        """Nothing rounds when a number is added to zero."""
        rounded = self.round(a + b)
        return np.where((a == 0) | (b == 0), a + b, rounded)

    def exp(self, x):
        if self.exponentials == "base 2":
            return self.round(np.exp2(self.round(x * self.round(np.log2(np.e)))), EXP_ROUNDOFFS)
        return self.round(np.exp(x), EXP_ROUNDOFFS)

    def log(self, x):
        if self.exponentials == "base 2":
            return self.round(self.round(np.log2(x), EXP_ROUNDOFFS) * self.round(np.log(2.0)))
        return self.round(np.log(x), EXP_ROUNDOFFS)

    def tanh(self, x):
        if self.exponentials == "base 2":
            return self.round(1 - self.divide(2.0, self.round(self.exp(2 * x) + 1)))
        return np.clip(self.round(np.tanh(x), EXP_ROUNDOFFS), -1, 1)

    def cos(self, x):
        return np.clip(self.round(np.cos(x), TRIGONOMETRIC_ROUNDOFFS), -1, 1)

    def sin(self, x):
        return np.clip(self.round(np.sin(x), TRIGONOMETRIC_ROUNDOFFS), -1, 1)

    def divide(self, a, b):
        return self.round(a * self.round(1 / b)) if self.reciprocals else self.round(a / b)

    def sqrt(self, x):
        return self.round(np.sqrt(x))

    def sums(self, terms):
        """Partial sums along the last axis, one term after another."""
        partial = np.empty_like(terms)
        running = np.zeros(terms.shape[:-1])
        for index in range(terms.shape[-1]):
            running = self.add(running, terms[..., index])
            partial[..., index] = running
        return partial

    def matmul(self, a, b):
        running = np.zeros(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + (a.shape[-2], b.shape[-1]))
        for index in range(a.shape[-1]):
            product = a[..., :, index, None] * b[..., index, None, :]
            running = self.add(running, product if self.fused else self.round(product))
        return running


BINARY = {np.add: np.add, np.subtract: np.subtract, np.multiply: np.multiply}
EXACT = (np.negative, np.absolute, np.maximum, np.minimum)
TESTS = (np.isfinite, np.isneginf, np.greater, np.less, np.equal, np.not_equal)


class Rounded(np.lib.mixins.NDArrayOperatorsMixin):
    """Numbers of a machine."""

    def __init__(self, value, machine):
        self.value, self.machine = value, machine

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    dtype = property(lambda self: self.value.dtype)

    def _plain(self, x):
        """A machine rounds the constants of its program; arrays that are not its own hold small numbers or masks."""
        if isinstance(x, Rounded):
            return x.value
        return self.machine.round(np.asarray(x, np.float64)) if isinstance(x, float) else np.asarray(x)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        machine, values = self.machine, [self._plain(x) for x in inputs]
        with np.errstate(all="ignore"):
            if method == "reduce" and ufunc is np.add:
                return total(self, **kwargs)
            if ufunc in TESTS:
                return ufunc(*values)
            if ufunc in BINARY:
                return Rounded(machine.round(ufunc(*values)), machine)
            if ufunc in EXACT:
                return Rounded(ufunc(*values), machine)
            own = {np.true_divide: "divide", np.matmul: "matmul", np.exp: "exp", np.log: "log", np.tanh: "tanh", np.sqrt: "sqrt",
                   np.cos: "cos", np.sin: "sin"}  # fmt: skip
            return Rounded(getattr(machine, own[ufunc])(*values), machine)

    def __array_function__(self, function, types, args, kwargs):
        if function in (np.sum, np.cumsum, np.einsum):
            return {np.sum: total, np.cumsum: cumulated, np.einsum: contracted}[function](*args, **kwargs)
        plain = [
            [self._plain(x) for x in arg] if isinstance(arg, (list, tuple)) and any(isinstance(x, Rounded) for x in arg) else arg
            for arg in args
        ]
        plain = [arg.value if isinstance(arg, Rounded) else arg for arg in plain]
        return Rounded(function(*plain, **kwargs), self.machine)

    def lifted(self, values):
        return self.machine.lift(values)

    def __getitem__(self, index):
        return Rounded(self.value[index], self.machine)

    def reshape(self, *shape):
        return Rounded(self.value.reshape(*shape), self.machine)

    def max(self, **kwargs):
        return Rounded(self.value.max(**kwargs), self.machine)


def total(a, axis=None, keepdims=False, **_):
    """Sum over an axis, or over all elements."""
    if axis is None:
        return Rounded(a.machine.sums(a.value.reshape(-1))[-1], a.machine)
    summed = a.machine.sums(np.moveaxis(a.value, axis, -1))[..., -1] if a.shape[axis] else a.value.sum(axis=axis)
    return Rounded(np.expand_dims(summed, axis) if keepdims else summed, a.machine)


def cumulated(a, axis):
    return Rounded(np.moveaxis(a.machine.sums(np.moveaxis(a.value, axis, -1)), -1, axis), a.machine)


def contracted(subscripts, a, b):
    """einsum of two operands, by a matrix product over all letters that the result lacks."""
    inputs, output = subscripts.split("->")
    first, second = inputs.split(",")
    gone = sorted(set(first + second) - set(output))
    letters = [*output, *gone]
    sizes = dict(zip(first, a.shape, strict=True)) | dict(zip(second, b.shape, strict=True))

    def spread(x, own):
        ordered = np.einsum(f"{own}->{''.join(letter for letter in letters if letter in own)}", x.value)
        return ordered.reshape([sizes[letter] if letter in own else 1 for letter in letters])

    products = a.machine.round(spread(a, first) * spread(b, second))
    shape = [sizes[letter] for letter in output]
    products = np.broadcast_to(products, [sizes[letter] for letter in letters]).reshape(*shape, -1)
    return Rounded(a.machine.sums(products)[..., -1], a.machine)
