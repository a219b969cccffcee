"""Attention on quantised operands in small steps, and the mistakes that its float8 and its SageAttention forms share.

Shapes: B batch, Hq query heads, Hkv key/value heads, Lq and Lk lengths, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, TypeVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle import METHODS
from oracle.codes import CODE_FORMATS, CodeFormat
from oracle.formats import FORMATS

__all__ = ["Float8", "Quantised", "Sage", "fp4", "of_both"]

FA3 = "Shah et al. 2024, section 3.3, arXiv:2407.08608"
SAGE = "Zhang et al. 2024, section 4, arXiv:2410.02367"
SAGE3 = "Zhang et al. 2025, section 3, arXiv:2505.11594"

E4M3, E2M1 = CODE_FORMATS["float8_e4m3fn"], CODE_FORMATS["float4_e2m1fn"]
Mistake = TypeVar("Mistake", bound=type)


def fp4(x: Array, size: int = 16, *, scales_rounded: bool = True) -> Array:
    """What is left of rows that have been NVFP4 in blocks."""
    width = x.shape[-1]
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], -width % size), x.dtype)], axis=-1)
    blocks = padded.reshape(*x.shape[:-1], padded.shape[-1] // size, size)
    scales = np.abs(blocks).max(axis=-1, keepdims=True, initial=0) / x.dtype.type(6)
    scales = E4M3.nearest(scales) if scales_rounded else scales
    numbers = E2M1.nearest(np.where(scales > 0, blocks / np.where(scales > 0, scales, 1), 0)) * scales
    return numbers.reshape(padded.shape)[..., :width].astype(x.dtype)


class Quantised(Steps):
    """What both forms share."""

    method: str

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        given = METHODS[self.method].given(arguments)
        self.q, self.k, self.v = arguments["q"], arguments["k"], arguments["v"]
        self.form, self.causal, self.scale = given["format"], given["causal"], given.get("scale")
        self.query_block, self.key_block = given["query_block"], given["key_block"]
        self.batch, self.heads, self.queries, self.width = self.q.shape
        self.groups, self.keys = self.k.shape[1:3]
        self.given = given

    def facts(self) -> dict[str, Any]:
        """Dimensions and options by name, and what follows from them."""
        return {
            "b": self.batch, "h": self.heads, "l": self.queries, "s": self.keys, "d": self.width, "g": self.groups, "e": self.v.shape[3],
            "format": self.form, "query_block": self.query_block, "key_block": self.key_block, "causal": self.causal,
            "signs": self.given.get("signs") is not None or None, "smooth_k": self.given.get("smooth_k"),
            "smooth_q": self.given.get("smooth_q"), "factor": Quantised.factor(self),
            "hidden": lambda: not Quantised.allowed(self).all(), "dtype": self.setting.dtype, **self.conventions,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q.size > 0 and self.keys > 0 and super().applies()

    def lost(self) -> bool:
        """Whether the logits are so large that their own rounding decides the softmax."""
        largest = np.abs(self.q).max(initial=0.0) * np.abs(self.k).max(initial=0.0) * self.width * abs(Quantised.factor(self))
        return bool(largest * FORMATS[self.dtype.name].unit_roundoff > 0.05)

    def factor(self) -> float:
        """What the products are multiplied by."""
        return 1 / sqrt(self.width) if self.scale is None else float(self.scale)

    def largest(self, form: CodeFormat) -> float:
        """What the largest magnitude of a block becomes."""
        return form.largest

    def rounded(self, x: Array, form: CodeFormat) -> Array:
        """The nearest numbers of a format."""
        return form.nearest(x)

    def amax(self, block: Array) -> Array:
        """The largest magnitude of a block of tokens, (B, H, 1, 1)."""
        return np.abs(block).max(axis=(2, 3), keepdims=True)

    def scales(self, x: Array, size: int, role: str) -> Array:
        """The scale of every token, (B, H, L, 1); role: q, k or v."""
        blocks = [x[:, :, start : start + size] for start in range(0, x.shape[2], size)]
        scales = np.concatenate([self.amax(block) for block in blocks], axis=2) / self.dtype.type(self.largest(CODE_FORMATS[self.form]))
        scales = np.where(scales == 0, self.dtype.type(1), scales)
        return scales[:, :, self.block_of(np.arange(x.shape[2]), size, scales.shape[2], role)]

    def block_of(self, tokens: Array, size: int, count: int, role: str) -> Array:
        """The block whose scale a token uses."""
        return tokens // size

    def factors(self, scales: Array, role: str) -> Array:
        """What codes are multiplied by again."""
        return scales

    def through_codes(self, x: Array, size: int, role: str) -> Array:
        """What is left of some tokens after they have been codes."""
        scales = self.scales(x, size, role)
        return (self.rounded(x / scales, CODE_FORMATS[self.form]) * self.factors(scales, role)).astype(self.dtype)

    def operands(self) -> tuple[Array, Array, Array]:
        """Queries, keys and values as they are multiplied."""
        raise NotImplementedError

    def added(self) -> Array:
        """What is added to the products of queries and keys."""
        return self.dtype.type(0)

    def head_of(self, heads: Array) -> Array:
        """The key/value head that a query head reads."""
        return heads // (self.heads // self.groups)

    def allowed(self) -> Array:
        """Which keys a query may read, (Lq, Lk)."""
        start = self.keys - self.queries if self.conventions["causal_alignment"] == "bottom-right" else 0
        return (np.arange(self.keys) - np.arange(self.queries)[:, None] - start <= 0) | (not self.causal)

    def maximum(self, logits: Array) -> Array:
        """What is subtracted from the logits."""
        largest = logits.max(axis=-1, keepdims=True)
        return np.where(np.isfinite(largest), largest, 0.0)

    def weights(self, logits: Array) -> Array:
        """Weights as they meet the values."""
        return np.exp(logits - self.maximum(logits))

    def denominator(self, logits: Array) -> Array:
        """The sum of the weights."""
        return np.exp(logits - self.maximum(logits)).sum(axis=-1, keepdims=True)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        q, k, v = self.operands()
        head = self.head_of(np.arange(self.heads))
        products = q @ k[:, head].swapaxes(2, 3) + self.added()
        logits = np.where(self.allowed(), products * self.dtype.type(self.factor()), -np.inf)
        total = self.denominator(logits)
        return ((self.weights(logits) @ v[:, head] / np.where(total == 0, 1, total)).astype(self.dtype),)


class Float8(Quantised):
    """`fp8_attention`, as the specification means it."""

    methods = ("fp8_attention",)
    method = "fp8_attention"

    def rotated(self, x: Array, role: str) -> Array:
        """Rows after the rotation, where there is one."""
        signs = self.given.get("signs")
        return x if signs is None else self.mixed(x * self.signs(signs, role)) * self.dtype.type(self.norm())

    def signs(self, signs: Array, role: str) -> Array:
        """The signs that rows are multiplied by; role: q or k."""
        return signs

    def norm(self) -> float:
        """What makes the rotation keep lengths."""
        return float(self.width**-0.5)

    def mixed(self, x: Array) -> Array:
        """Rows times the Hadamard matrix."""
        numbers = np.arange(x.shape[-1])
        parity = np.array([[int(i & j).bit_count() % 2 for j in numbers] for i in numbers])
        return x @ (1 - 2 * parity).astype(self.dtype)

    def operands(self) -> tuple[Array, Array, Array]:
        q, k = self.rotated(self.q, "q"), self.rotated(self.k, "k")
        sizes = {"q": self.query_block, "k": self.key_block, "v": self.key_block}
        q, k, v = (self.through_codes(x, sizes[role], role) for role, x in (("q", q), ("k", k), ("v", self.v)))
        return q, k, v


class Sage(Quantised):
    """`sage_attention`, as the specification means it."""

    methods = ("sage_attention",)
    method = "sage_attention"

    def key_mean(self) -> Array:
        """What is subtracted from the keys."""
        return self.k.mean(axis=2, keepdims=True)

    def smooth_keys(self) -> Array:
        """Keys without their mean."""
        return self.k - self.key_mean() if self.given["smooth_k"] else self.k

    def query_means(self) -> Array:
        """What is subtracted from each query, (B, Hq, Lq, D)."""
        blocks = [self.q[:, :, start : start + self.query_block] for start in range(0, self.queries, self.query_block)]
        return np.concatenate([np.broadcast_to(block.mean(axis=2, keepdims=True), block.shape) for block in blocks], axis=2)

    def smooth_queries(self) -> Array:
        """Queries without the mean of their block."""
        return self.q - self.query_means() if self.given["smooth_q"] else self.q

    def added(self) -> Array:
        if not self.given["smooth_q"]:
            return self.dtype.type(0)
        return self.query_means() @ self.smooth_keys()[:, self.head_of(np.arange(self.heads))].swapaxes(2, 3)

    def in_fp4(self, x: Array, role: str) -> Array:
        """Rows after they have been NVFP4; role: q, k, v or p."""
        return fp4(x)

    def values_in_fp4(self) -> Array:
        """Values after they have been NVFP4, in blocks of tokens."""
        return self.in_fp4(self.v.swapaxes(2, 3), "v").swapaxes(2, 3)

    def operands(self) -> tuple[Array, Array, Array]:
        q, k = self.smooth_queries(), self.smooth_keys()
        if self.form == "nvfp4":
            return self.in_fp4(q, "q"), self.in_fp4(k, "k"), self.values_in_fp4()
        return self.through_codes(q, self.query_block, "q"), self.through_codes(k, self.key_block, "k"), self.v

    def level(self, tile: Array, row: Array) -> Array:
        """What a tile of weights is divided by before it is NVFP4; row: the weights of all tiles."""
        largest = tile.max(axis=-1, keepdims=True)
        return np.where(largest == 0, 1, largest) / self.dtype.type(6 * 448)

    def weights(self, logits: Array) -> Array:
        weights = super().weights(logits)
        if self.form != "nvfp4":
            return weights
        tiles = []
        for start in range(0, self.keys, self.key_block):
            tile = weights[..., start : start + self.key_block]
            level = self.level(tile, weights)
            tiles.append(self.in_fp4(tile / level, "p") * level)
        return np.concatenate(tiles, axis=-1)


def of_both(mistake: Mistake) -> Mistake:
    """Declare a mistake of both forms: a class that overrides steps, with a name, an explanation and a citation."""
    told = {name: vars(mistake)[name] for name in ("name", "explanation", "citation", "needs", "occasional") if name in vars(mistake)}
    for form in (Float8, Sage):
        type(f"{form.__name__}{mistake.__name__}", (mistake, form), told)
    return mistake
