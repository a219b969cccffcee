"""Attention on quantised operands: queries and keys in a format of 8 or 4 bits, and what that does to the values.

FlashAttention-3 in FP8: Shah et al. 2024, arXiv:2407.08608, section 3.3. SageAttention: Zhang et al. 2024, arXiv:2410.02367, section 4;
SageAttention3 in FP4: Zhang et al. 2025, arXiv:2505.11594, section 3. Every function runs on float64 arrays, on `Bounded` arrays and on
Arb balls.

Where queries, keys and values are rounded is exact: blocks, scales, rounding to nearest even; a kernel may differ by one quantum where a
value lies within its own error of a boundary (`oracle.readings.quantised`). Weights of float8 are rounded under the running maximum of
a tile, so their codes depend on the order of the loop: for them the budget has a rounding to their format, the value none. Weights of
FP4 are scaled to their own maximum in each tile of keys, which makes them exact as well.

Shapes: B batch, Hq query heads, Hkv key/value heads, Lq and Lk lengths, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.codes import CODE_FORMATS
from oracle.dense import GROUPED, allowed_keys, attention, join_heads, split_heads
from oracle.microscaling import MICROSCALING, microscaled, spread_blocks
from oracle.quantisation import repeated, scales_of
from oracle.readings.features import lifted, values_of
from oracle.readings.ops import as_operand, as_stored, number, shifted_exponentials
from oracle.readings.quantised import divided, exactly, quantised

__all__ = ["fp8_attention", "hadamard", "sage_attention"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

E4M3 = CODE_FORMATS["float8_e4m3fn"]

# What a row of weights of SageAttention3 is scaled to before it is cut into blocks: the largest element times the largest scale of one.
TWO_LEVELS = CODE_FORMATS["float4_e2m1fn"].largest * E4M3.largest


def hadamard(width: int) -> np.ndarray:
    """The Hadamard matrix of a power of two, of 1 and -1 in Sylvester's order, (width, width)."""
    made = np.ones((1, 1))
    while len(made) < width:
        made = np.block([[made, made], [made, -made]])
    return made


def _in_blocks_of_tokens(x: Array, format_name: str, size: int) -> tuple[Array, Array]:
    """Codes of blocks of tokens (B, H, L, D), and the scale of every token (B, H, L, 1)."""
    form = CODE_FORMATS[format_name]
    scales = repeated(scales_of(x, form, "block", size)[0], "block", size, x.shape[2])
    return quantised(divided(x, scales), form), scales


def _products(q: Array, k: Array) -> Array:
    """Inner products of queries and keys, (B, Hq, Lq, Lk)."""
    return join_heads(np.matmul(split_heads(q, k.shape[1]), np.swapaxes(k, -1, -2)[:, :, None]))


def _of_each_key(x: Array, heads: int) -> Array:
    """Something of a key (B, Hkv, Lk, 1) as a factor of the logits, (B, Hq, 1, Lk)."""
    return np.swapaxes(np.repeat(x, heads // max(x.shape[1], 1), axis=1), -1, -2)


def _weighted(weights: Array, v: Array, allowed: np.ndarray) -> Array:
    """The weighed mean of values (B, Hq, Lq, Dv); zeros for a row without keys."""
    hidden = ~allowed.any(axis=-1, keepdims=True)
    total = np.where(hidden, 1.0, np.sum(weights, axis=-1, keepdims=True))
    out = join_heads(np.matmul(split_heads(weights, v.shape[1]), v[:, :, None]))
    return np.where(hidden, 0.0, out / total)


def _near_attention(arguments: Mapping[str, Any]) -> tuple[str, np.ndarray, np.ndarray]:
    """A quantised attention beside exact attention of the same queries, keys and values."""
    own = fp8_attention if "float8" in arguments.get("format", "") else sage_attention
    shared = {name: arguments[name] for name in ("q", "k", "v", "causal", "scale") if name in arguments}
    return attention.name, own.spec(**arguments), attention.spec(**shared)


@method(
    source="Shah et al. 2024, section 3.3, arXiv:2407.08608",
    shapes="q: b h l d, k: b g s d, v: b g s e, signs?: d -> b h l e",
    where={
        **GROUPED,
        "signs is None or d in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)": "a rotation needs a width that is a power of two",
    },
    options={"format": ("float8_e4m3fn", "float8_e5m2"), "query_block": "size", "key_block": "size", "causal": "flag", "scale": "real"},
    conventions={"causal_alignment": ("bottom-right", "top-left")},
    domains={"signs": "sign"},
    approximation=_near_attention,
    tunables=("block_q", "block_k"),
    refusable={"h == g": "grouped heads"},
)
def fp8_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    signs: Array | None = None,
    format: str = "float8_e4m3fn",
    query_block: int = 64,
    key_block: int = 64,
    causal: bool = False,
    scale: float | None = None,
    causal_alignment: str = "bottom-right",
) -> Array:
    """Attention on queries, keys and values in float8 with one scale for each block of tokens of a head.

    Args:
        q: queries (B, Hq, Lq, D).
        k: keys (B, Hkv, Lk, D); query head h reads key/value head h // (Hq // Hkv).
        v: values (B, Hkv, Lk, Dv).
        signs: (D,) of 1 and -1: queries and keys are multiplied by them and by the Hadamard matrix over sqrt(D) before they are
            quantised (incoherent processing): an orthogonal matrix, which their products do not see. D must be a power of two.
        format: of queries, keys and values; weights are rounded to e4m3.
        query_block, key_block: tokens that share a scale; the last block may have fewer.
        causal: key j is allowed for query i iff j <= i + Lk - Lq.
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (B, Hq, Lq, Dv); zeros for a row without allowed keys.

    Raises:
        ShapeError: an array does not fit the signature, or the width is no power of two where there are signs.
        OptionError: an option is unknown or out of range, or a sign is neither 1 nor -1.
    """
    scale = 1 / np.sqrt(number(q.shape[-1], like=q)) if scale is None else scale
    if signs is not None:
        q, k = (as_stored(np.matmul(x * signs, hadamard(x.shape[-1])) / np.sqrt(number(x.shape[-1], like=x))) for x in (q, k))
    (q, q_scales), (k, k_scales), (v, v_scales) = (
        _in_blocks_of_tokens(x, format, size) for x, size in ((q, query_block), (k, key_block), (v, key_block))
    )
    logits = _products(q, k) * q_scales * _of_each_key(k_scales, q.shape[1]) * scale
    allowed = allowed_keys(q.shape[2], k.shape[2], causal=causal, causal_alignment=causal_alignment)
    weights, _ = shifted_exponentials(np.where(allowed, logits, -np.inf))
    weights = as_operand(weights, E4M3.unit_roundoff, E4M3.smallest / 2)
    return _weighted(weights, v * v_scales, allowed)


@method(
    source="Zhang et al. 2024, section 4, arXiv:2410.02367; FP4: Zhang et al. 2025, section 3, arXiv:2505.11594",
    shapes="q: b h l d, k: b g s d, v: b g s e -> b h l e",
    where={**GROUPED, "format == 'int8' or key_block % 16 == 0": "a tile of weights holds whole blocks of NVFP4"},
    options={
        "format": ("int8", "nvfp4"), "query_block": "size", "key_block": "size", "smooth_k": "flag", "smooth_q": "flag", "causal": "flag",
        "scale": "real",
    },
    conventions={"causal_alignment": ("bottom-right", "top-left")},
    tunables=("block_q", "block_k"),
    refusable={"h == g": "grouped heads"},
    approximation=_near_attention,
)  # fmt: skip
def sage_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    format: str = "int8",
    query_block: int = 128,
    key_block: int = 64,
    smooth_k: bool = True,
    smooth_q: bool = False,
    causal: bool = False,
    scale: float | None = None,
    causal_alignment: str = "bottom-right",
) -> Array:
    """Attention on quantised queries and keys from which their means have been taken.

    The mean of all keys shifts all logits of a row alike, which a softmax does not see; the mean of a block of queries is taken away
    too where asked for, and its products with the keys, not quantised, are added to the logits.

    Args:
        q: queries (B, Hq, Lq, D).
        k: keys (B, Hkv, Lk, D); query head h reads key/value head h // (Hq // Hkv).
        v: values (B, Hkv, Lk, Dv).
        format: int8 (symmetric, one scale for each block of tokens of a head; values and weights stay what they are), or nvfp4: e2m1 in
            blocks of 16 along D, of values along the tokens, with e4m3 scales max / 6; weights too, scaled to two levels.
        query_block: queries that share a scale of int8 and a mean.
        key_block: keys that share a scale of int8; of nvfp4, in a tile of weights that share the first level of their scale, a
            multiple of 16. The last block may have fewer.
        smooth_k: whether the mean of each head's keys, over all tokens, is subtracted from them.
        smooth_q: whether the mean of each block of queries is.
        causal: key j is allowed for query i iff j <= i + Lk - Lq.
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (B, Hq, Lq, Dv); zeros for a row without allowed keys.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range.
    """
    scale = 1 / np.sqrt(number(q.shape[-1], like=q)) if scale is None else scale
    allowed = allowed_keys(q.shape[2], k.shape[2], causal=causal, causal_alignment=causal_alignment)
    if smooth_k:
        k = as_stored(k - as_stored(np.sum(k, axis=2, keepdims=True) / max(k.shape[2], 1)))
    added: Any = 0.0
    if smooth_q and q.shape[2]:
        blocks = [q[:, :, start : start + query_block] for start in range(0, q.shape[2], query_block)]
        means = np.concatenate([np.sum(block, axis=2, keepdims=True) / block.shape[2] for block in blocks], axis=2)
        means = as_stored(repeated(means, "block", query_block, q.shape[2]))
        q, added = as_stored(q - means), _products(means, k)
    if format == "int8":
        q, q_scales = _in_blocks_of_tokens(q, format, query_block)
        k, k_scales = _in_blocks_of_tokens(k, format, key_block)
        products = _products(q, k) * q_scales * _of_each_key(k_scales, q.shape[1])
    else:
        q, k = (_through_fp4(x) for x in (q, k))
        v = np.swapaxes(_through_fp4(np.swapaxes(v, -1, -2)), -1, -2)
        products = _products(q, k)
    logits = np.where(allowed, (products + added) * scale, -np.inf)
    if format == "int8":
        return _weighted(as_operand(shifted_exponentials(logits)[0]), v, allowed)
    return _weighted_in_fp4(logits, v, allowed, key_block)


def _weighted_in_fp4(logits: Array, v: Array, allowed: np.ndarray, size: int) -> Array:
    """The mean of values (B, Hkv, Lk, Dv) under weights that are NVFP4 in each tile of keys.

    In a tile a weight is exp(logit - the tile's maximum), whatever the running maximum: a row is scaled so that its largest weight in the
    tile becomes `TWO_LEVELS`, and then in blocks. The denominator is the sum of weights that have not been rounded.
    """
    if logits.shape[3] == 0:
        return _weighted(logits, v, allowed)
    shape = (*logits.shape[:3], 1)
    sums, totals, maxima = [], [], []
    for start in range(0, logits.shape[3], size):
        keys = slice(start, start + size)
        seen = np.broadcast_to(allowed[:, keys].any(axis=-1, keepdims=True), shape)
        weights, shift = shifted_exponentials(logits[:, :, :, keys])
        # What is rounded is relative to the largest logit as it has been computed, whose error does not cancel there.
        largest = np.where(seen, np.max(logits[:, :, :, keys], axis=-1, keepdims=True), lifted(np.zeros(()), logits))
        rounded = _through_fp4(np.exp(logits[:, :, :, keys] - largest) * TWO_LEVELS) / TWO_LEVELS * np.exp(largest - shift)
        sums.append(join_heads(np.matmul(split_heads(rounded, v.shape[1]), v[:, :, None, keys])))
        totals.append(np.sum(weights, axis=-1, keepdims=True))
        maxima.append(np.where(seen, values_of(shift), -np.inf))
    parts, _ = shifted_exponentials(exactly(np.concatenate(maxima, axis=-1), sums[0]))
    hidden = ~allowed.any(axis=-1, keepdims=True)
    out, total = (sum(one * parts[..., index : index + 1] for index, one in enumerate(each)) for each in (sums, totals))
    return np.where(hidden, 0.0, out / np.where(hidden, 1.0, total))


def _through_fp4(x: Array) -> Array:
    """What is left of rows that have been NVFP4, in blocks along the last axis without a scale of the tensor."""
    form = MICROSCALING["nvfp4"]
    codes, scales = microscaled(x, form)
    return codes * spread_blocks(scales, form.size, x.shape[-1])
