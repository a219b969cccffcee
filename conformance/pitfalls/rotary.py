"""Mistakes of rotary embeddings: which columns make a pair, how fast it turns, which way, and from which position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle import METHODS

__all__ = ["Rotary"]

SU = "Su et al. 2021, section 3.2.2, arXiv:2104.09864"


class Rotary(Steps):
    """What the specification means, in the working dtype of a kernel."""

    methods: ClassVar[tuple[str, ...]] = ("rotary_embedding",)
    citation: ClassVar[str] = SU
    needs = "turned > 0"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.x, self.given = arguments["x"], arguments["positions"]
        self.base = float(arguments.get("base", 10000.0))
        self.width = self.x.shape[3]
        self.turned = self.width if arguments.get("rotary_width") is None else int(arguments["rotary_width"])

    def facts(self) -> dict[str, Any]:
        """Dimensions and options by name, how many columns are turned, and what the positions are."""
        options = {name: self.arguments.get(name) for name in METHODS["rotary_embedding"].options}
        return {
            **METHODS["rotary_embedding"].sizes(self.arguments), **options, "turned": self.turned, "pairs": self.turned // 2,
            "base_used": self.base, "dtype": self.setting.dtype, "half": self.setting.dtype in ("float16", "bfloat16"),
            "moved": lambda: bool((self.given != 0).any()),
            "rows": self.given.shape[0], "differ": lambda: bool((self.given[:1] != self.given).any()),
            "b": self.x.shape[0], "l": self.x.shape[2],
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.x.size > 0 and super().applies()

    def positions(self) -> Array:
        """(B | 1, L)."""
        return self.given

    def count(self) -> int:
        """How many columns are turned."""
        return self.turned

    def exponents(self) -> Array:
        """Minus the exponents of the base, (pairs,)."""
        return np.arange(self.count() // 2) * 2 / max(self.count(), 1)

    def frequencies(self) -> Array:
        """Of each pair."""
        return self.base ** -self.exponents()

    def angles(self) -> Array:
        """(B | 1, 1, L, pairs): in float64, as the mistakes are not about them."""
        return self.positions()[:, None, :, None] * self.frequencies()

    def cosines(self) -> Array:
        """Of the angles."""
        return np.cos(self.angles()).astype(self.dtype)

    def sines(self) -> Array:
        """Of the angles."""
        return np.sin(self.angles()).astype(self.dtype)

    def interleaved(self) -> bool:
        """Whether neighbours make a pair."""
        return bool(self.arguments.get("interleaved"))

    def columns(self) -> Array:
        """The columns of each pair, (pairs, 2)."""
        columns = np.arange(self.count() // 2 * 2)
        return columns.reshape(-1, 2) if self.interleaved() else columns.reshape(2, -1).T

    def turn(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Pairs, turned."""
        cos, sin = self.cosines(), self.sines()
        return first * cos - second * sin, first * sin + second * cos

    def rest(self, out: Array) -> Array:
        """All columns, those that are not turned among them."""
        return out

    def outputs(self) -> tuple[Array, ...]:
        out, columns = self.x.copy(), self.columns()
        out[..., columns[:, 0]], out[..., columns[:, 1]] = self.turn(self.x[..., columns[:, 0]], self.x[..., columns[:, 1]])
        return (self.rest(out),)


class AlwaysInHalves(Rotary):
    name = "pairs-always-in-halves"
    explanation = "Column i is paired with i + w / 2 although interleaved pairs are meant."
    citation = "vllm-ascend#12780"
    needs = "interleaved and pairs > 1 and moved"

    def interleaved(self) -> bool:
        return False


class AlwaysInterleaved(Rotary):
    name = "pairs-always-interleaved"
    explanation = "Columns 2 i and 2 i + 1 are paired although the two halves are meant."
    citation = "onnxruntime#26390"
    needs = "not interleaved and pairs > 1 and moved"

    def interleaved(self) -> bool:
        return True


class FrequenciesOfOtherPairing(Rotary):
    name = "frequencies-of-the-other-pairing"
    explanation = "Pairs are made one way and their frequencies laid out the other way, so that two columns turn at different speeds."
    citation = "how-to-train-your-gpt#6"
    needs = "pairs > 1 and moved"

    def turn(self, first: Array, second: Array) -> tuple[Array, Array]:
        cos, sin = self.cosines(), self.sines()
        each = [np.concatenate([x, x], axis=-1) if self.interleaved() else np.repeat(x, 2, axis=-1) for x in (cos, sin)]
        columns = self.columns()
        (cos_a, cos_b), (sin_a, sin_b) = ([x[..., columns[:, side]] for side in (0, 1)] for x in each)
        return first * cos_a - second * sin_a, first * sin_b + second * cos_b


class TurnedBackwards(Rotary):
    name = "turned-backwards"
    explanation = "The sign of the sine is flipped: pairs turn the other way, and the farther token seems to be the nearer one."
    needs = "turned > 0 and moved"

    def sines(self) -> Array:
        return -super().sines()


class MinusForgotten(Rotary):
    name = "rotate-half-without-minus"
    explanation = "The second half is added without its minus: x1 cos + x2 sin, which is no rotation."
    needs = "turned > 0 and moved"

    def turn(self, first: Array, second: Array) -> tuple[Array, Array]:
        cos, sin = self.cosines(), self.sines()
        return first * cos + second * sin, second * cos + first * sin


class SineAndCosineExchanged(Rotary):
    name = "sine-and-cosine-exchanged"
    explanation = "The tables of sines and cosines are exchanged."

    def turn(self, first: Array, second: Array) -> tuple[Array, Array]:
        cos, sin = self.sines(), self.cosines()
        return first * cos - second * sin, first * sin + second * cos


class FirstHalfOnly(Rotary):
    name = "second-of-pair-from-turned-first"
    explanation = "The first column of a pair is overwritten before the second one is computed from it."
    needs = "turned > 0 and moved"

    def turn(self, first: Array, second: Array) -> tuple[Array, Array]:
        cos, sin = self.cosines(), self.sines()
        turned = first * cos - second * sin
        return turned, turned * sin + second * cos


class PositionsFromOne(Rotary):
    name = "positions-from-one"
    explanation = "Positions are counted from 1: every pair is turned one step too far."

    def positions(self) -> Array:
        return super().positions() + 1


class PositionsOneBehind(Rotary):
    name = "positions-one-behind"
    explanation = "The position of a token is taken to be the number of those before it, less one: one step too few."
    needs = "turned > 0 and moved"

    def positions(self) -> Array:
        return np.maximum(super().positions() - 1, 0)


class PositionsIgnored(Rotary):
    name = "positions-from-zero-always"
    explanation = "Tokens are counted from 0 in every call: behind a cache, or padding on the left, they stand elsewhere."
    citation = "flashinfer#847"
    needs = "turned > 0 and elsewhere"

    def facts(self) -> dict[str, Any]:
        """Those of the call, and whether the positions are not 0, 1, 2, ..."""
        return {**super().facts(), "elsewhere": lambda: bool((self.given != np.arange(self.x.shape[2])).any())}

    def positions(self) -> Array:
        return np.arange(self.x.shape[2])[None]


class PositionsContinueFirst(Rotary):
    name = "positions-continue-from-the-first"
    explanation = "Only the position of the first token is looked at; the others are taken to follow it."
    needs = "turned > 0 and uneven"

    def facts(self) -> dict[str, Any]:
        """Those of the call, and whether some position does not follow the one before it."""
        return {**super().facts(), "uneven": lambda: bool((np.diff(self.given, axis=-1) != 1).any())}

    def positions(self) -> Array:
        return self.given[:, :1] + np.arange(self.x.shape[2])


class PositionsOfFirst(Rotary):
    name = "positions-of-first-sequence"
    explanation = "All sequences use the positions of the first one."
    citation = "transformers#22161"
    needs = "turned > 0 and differ"

    def positions(self) -> Array:
        return self.given[:1]


class PositionsClamped(Rotary):
    name = "positions-clamped-to-table"
    explanation = "The tables end at position 2047, and what lies beyond reads their last row."
    needs = "turned > 0 and beyond"
    occasional = True

    def facts(self) -> dict[str, Any]:
        """Those of the call, and whether some position lies beyond the table."""
        return {**super().facts(), "beyond": lambda: bool((self.given > 2047).any())}

    def positions(self) -> Array:
        return np.minimum(self.given, 2047)


class BaseIgnored(Rotary):
    name = "base-ignored"
    explanation = "The option `base` has no effect: frequencies are powers of 10000."
    needs = "pairs > 1 and base_used != 10000 and moved"

    def frequencies(self) -> Array:
        return 10000.0 ** -self.exponents()


class ExponentNotDoubled(Rotary):
    name = "exponent-half-as-large"
    explanation = "The exponent of pair i is i / w instead of 2 i / w: the slow pairs turn too fast."
    needs = "pairs > 1 and moved"

    def exponents(self) -> Array:
        return super().exponents() / 2


class ExponentTwiceAsLarge(Rotary):
    name = "exponent-twice-as-large"
    explanation = "The exponents go up to 2 instead of 1, as if the width were that of the pairs."
    citation = "RETRO-pytorch#12"
    needs = "pairs > 1 and moved"

    def exponents(self) -> Array:
        return super().exponents() * 2


class PairsFromOne(Rotary):
    name = "pairs-counted-from-one"
    explanation = "Pair i has the frequency of pair i + 1."
    needs = "turned > 0 and moved"

    def exponents(self) -> Array:
        return super().exponents() + 2 / max(self.count(), 1)


class LastFrequencyReached(Rotary):
    name = "exponents-up-to-one"
    explanation = "The exponents are spread evenly from 0 to 1 with both ends: all pairs but the first turn too slowly."
    needs = "pairs > 1 and moved"

    def exponents(self) -> Array:
        return np.linspace(0.0, 1.0, self.count() // 2)


class FrequenciesReversed(Rotary):
    name = "frequencies-reversed"
    explanation = "The last pair turns fastest instead of the first."
    needs = "pairs > 1 and moved"

    def frequencies(self) -> Array:
        return super().frequencies()[::-1]


class RotaryWidthIgnored(Rotary):
    name = "rotary-width-ignored"
    explanation = "All columns are turned although only the first ones should be."
    needs = "rotary_width is not None and turned < d and d > 1 and moved"

    def count(self) -> int:
        return self.width // 2 * 2


class FrequenciesOfWholeWidth(Rotary):
    name = "frequencies-of-whole-width"
    explanation = "The first columns are turned, at frequencies that divide by the whole width of a head."
    needs = "rotary_width is not None and turned < d and pairs > 1 and moved"

    def exponents(self) -> Array:
        return np.arange(self.count() // 2) * 2 / self.width


class LastColumnsTurned(Rotary):
    name = "last-columns-turned"
    explanation = "The last columns are turned instead of the first, as multi-head latent attention does."
    needs = "rotary_width is not None and turned > 0 and turned < d and moved"

    def columns(self) -> Array:
        return super().columns() + self.width - self.count()


class RestCleared(Rotary):
    name = "rest-of-columns-cleared"
    explanation = "The columns that are not turned come out as zeros."
    needs = "rotary_width is not None and turned < d"

    def rest(self, out: Array) -> Array:
        return np.where(np.arange(self.width) < self.turned, out, 0.0).astype(self.dtype)


class AnglesInStorage(Rotary):
    name = "angles-in-storage-dtype"
    explanation = "Positions times frequencies are rounded to 16 bits: an angle of hundreds is off by a turn."
    citation = "gpt-neox#1003"
    needs = "half and turned > 0 and moved"

    def angles(self) -> Array:
        return self.stored(super().angles().astype(self.dtype))


class FrequenciesInStorage(Rotary):
    name = "frequencies-in-storage-dtype"
    explanation = "The frequencies are rounded to 16 bits, and the error grows with the position."
    citation = "sglang-jax#1472"
    needs = "half and pairs > 1 and moved"

    def frequencies(self) -> Array:
        return self.stored(super().frequencies().astype(self.dtype))


class TurnedTwice(Rotary):
    name = "turned-twice"
    explanation = "Queries or keys that have been turned already are turned again."
    needs = "turned > 0 and moved"

    def angles(self) -> Array:
        return super().angles() * 2


class NotTurned(Rotary):
    name = "not-turned"
    explanation = "The embedding is not applied."
    needs = "turned > 0 and moved"

    def angles(self) -> Array:
        return super().angles() * 0
