"""Dense attention: softmax over all allowed keys.

Vaswani et al. 2017, arXiv:1706.03762, eq. 1; grouped heads: Shazeer 2019, arXiv:1911.02150, and Ainslie et al. 2023,
arXiv:2305.13245; logsumexp and merging of partial results: Dao et al. 2022, arXiv:2205.14135, section 3.1, and Milakov
and Gimelshein 2018, arXiv:1805.02867. Every function runs on float64 arrays, on `Bounded` arrays and on Arb balls.

Shapes: B batch, Hq query heads, Hkv key/value heads, Lq and Lk lengths, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.ops import as_operand, constants, logarithm, number, shifted_exponentials

__all__ = [
    "allowed_keys", "attention", "attention_with_lse", "merge_attention_states", "scores_of_keys", "unread_by", "visible_keys",
]  # fmt: skip

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings
Window = tuple[int | None, int | None]

SHAPES = "q: b h l d, k: b g s d, v: b g s e, mask?: bool ~(b h l s), bias?: ~(b h l s), sinks?: h"
GROUPED = {"h % g == 0": "query heads must be a multiple of key/value heads"}
OPTIONS = {"causal": "flag", "window": "window", "softcap": "positive", "scale": "real"}
CONVENTIONS = {
    "causal_alignment": ("bottom-right", "top-left"),
    "empty_row": ("zeros", "nan", "mean"),
    "head_map": ("grouped", "interleaved"),
    "window_bounds": ("inclusive", "exclusive"),
    "softcap_order": ("before-bias", "after-bias"),
}
TUNABLES = ("block_q", "block_k", "num_splits")


def split_heads(x: Array, kv_heads: int, head_map: str = "grouped") -> Array:
    """Group query heads by the key/value head that they read: (B, Hq, ...) -> (B, Hkv, Hq // Hkv, ...).

    ``grouped``: head h reads h // (Hq // Hkv); ``interleaved``: it reads h % Hkv.
    """
    batch, heads, *rest = x.shape
    if head_map == "grouped":
        return x.reshape(batch, kv_heads, heads // kv_heads, *rest)
    return np.swapaxes(x.reshape(batch, heads // kv_heads, kv_heads, *rest), 1, 2)


def join_heads(x: Array, head_map: str = "grouped") -> Array:
    """Undo `split_heads`: (B, Hkv, G, ...) -> (B, Hkv * G, ...)."""
    if head_map == "interleaved":
        x = np.swapaxes(x, 1, 2)
    batch, outer, inner, *rest = x.shape
    return x.reshape(batch, outer * inner, *rest)


def allowed_keys(
    queries: int,
    keys: int,
    *,
    mask: np.ndarray | None = None,
    causal: bool = False,
    window: Window | None = None,
    causal_alignment: str = "bottom-right",
    window_bounds: str = "inclusive",
) -> np.ndarray:
    """Which keys a query may read: bool, broadcastable to (B, Hq, Lq, Lk).

    With the default alignment the last query sees the last key: query i stands at position i + Lk - Lq.
    """
    start = keys - queries if causal_alignment == "bottom-right" else 0
    offset = np.arange(keys)[None, :] - (np.arange(queries)[:, None] + start)  # (Lq, Lk): how far ahead the key lies
    allowed = np.ones((queries, keys), dtype=bool)
    if causal:
        allowed &= offset <= 0
    if window is not None:
        left, right = window
        reach = 0 if window_bounds == "inclusive" else 1
        if left is not None:
            allowed &= offset >= -(left - reach)
        if right is not None:
            allowed &= offset <= right - reach
    return allowed if mask is None else allowed & mask


MASKING = ("mask", "causal", "window", "causal_alignment", "window_bounds")


def visible_keys(arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> np.ndarray:
    """Which keys the arguments of a call let a query read; see `allowed_keys`."""
    return allowed_keys(sizes["l"], sizes["s"], **{name: arguments[name] for name in MASKING if name in arguments})


def unread_by(
    visible: Callable[[Mapping[str, Any], Mapping[str, int]], np.ndarray],
) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
    """From which keys a query reads to the elements of k and v that no query reads; for `Method.unread`."""

    def unread(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        (batch, heads, queries, width), k, v = arguments["q"].shape, arguments["k"], arguments["v"]
        if arguments.get("empty_row") == "mean":
            return {}
        sizes = {"b": batch, "h": heads, "l": queries, "d": width, "g": k.shape[1], "s": k.shape[2], "e": v.shape[3]}
        allowed = np.broadcast_to(visible(arguments, sizes), (batch, heads, queries, k.shape[2]))
        grouped = split_heads(allowed, k.shape[1], arguments.get("head_map", "grouped"))
        hidden = ~grouped.any(axis=(2, 3))[..., None]
        return {"k": np.broadcast_to(hidden, k.shape), "v": np.broadcast_to(hidden, v.shape)}

    return unread


def scores_of_keys(
    q: Array, k: Array, *, bias: Array | None, softcap: float | None, scale: float | None, softcap_order: str, head_map: str
) -> Array:
    """The logits before masking, (B, Hq, Lq, Lk): softcap(scale * q k^T) + bias."""
    scale = 1 / np.sqrt(number(q.shape[-1], like=q)) if scale is None else scale
    grouped = split_heads(q, k.shape[1], head_map)
    scores = join_heads(np.matmul(grouped, np.swapaxes(k, -1, -2)[:, :, None]), head_map) * scale
    if bias is not None and softcap_order == "after-bias":
        scores = scores + bias
    if softcap is not None:
        scores = np.tanh(scores / softcap) * softcap
    if bias is not None and softcap_order == "before-bias":
        scores = scores + bias
    return scores


@method(
    source="Vaswani et al. 2017, eq. 1, arXiv:1706.03762; logsumexp: Dao et al. 2022, section 3.1, arXiv:2205.14135",
    shapes=f"{SHAPES} -> out: b h l e, lse: statistic b h l",
    where=GROUPED,
    options=OPTIONS,
    conventions={**CONVENTIONS, "lse_base": ("e", "2")},
    tunables=TUNABLES,
    visible=visible_keys,
    unread=unread_by(visible_keys),
)
def attention_with_lse(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: np.ndarray | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
    causal_alignment: str = "bottom-right",
    empty_row: str = "zeros",
    head_map: str = "grouped",
    window_bounds: str = "inclusive",
    softcap_order: str = "before-bias",
    lse_base: str = "e",
) -> tuple[Array, Array]:
    """Attention and the natural logarithm of its denominator.

    Args: as `attention`.

    Returns:
        out (B, Hq, Lq, Dv), and lse (B, Hq, Lq), which is -inf for a row without keys and without a sink.
    """
    scores = scores_of_keys(q, k, bias=bias, softcap=softcap, scale=scale, softcap_order=softcap_order, head_map=head_map)
    allowed = allowed_keys(
        q.shape[2], k.shape[2], mask=mask, causal=causal, window=window,
        causal_alignment=causal_alignment, window_bounds=window_bounds,
    )  # fmt: skip
    scores = np.where(allowed, scores, -np.inf)
    keys = scores.shape[-1]
    if sinks is not None:
        column = np.broadcast_to(sinks[None, :, None, None], (*scores.shape[:-1], 1))
        scores = np.concatenate([scores, column], axis=-1)
    weights, shift = shifted_exponentials(scores)
    weights = as_operand(weights)
    total = np.sum(weights, axis=-1, keepdims=True)
    weighted = np.matmul(split_heads(weights[..., :keys], v.shape[1], head_map), v[:, :, None])
    hidden = ~np.broadcast_to(allowed, (*q.shape[:3], keys)).any(axis=-1, keepdims=True)
    nothing = hidden if sinks is None else np.zeros_like(hidden)
    out = np.where(hidden, 0.0, join_heads(weighted, head_map) / np.where(nothing, 1.0, total))
    if empty_row != "zeros" and sinks is None:
        out = np.where(hidden, _filler(empty_row, v, q.shape, head_map), out)
    lse = np.where(nothing, -np.inf, logarithm(np.where(nothing, 1.0, total)) + shift)[..., 0]
    return out, lse if lse_base == "e" else lse / np.log(number(2.0, like=q))


def _filler(empty_row: str, v: Array, shape: tuple[int, ...], head_map: str) -> Array:
    """What an implementation that declares it returns for a row without keys: NaN, or the mean of all values."""
    keys = v.shape[2]
    if empty_row == "nan" or keys == 0:
        return np.nan if empty_row == "nan" else 0.0
    # A softmax over equal logits, whose weights a kernel may round as any others: all of them alike, so that the error does not average.
    weight = as_operand(constants(np.ones(1), like=v))
    mean = np.sum(v, axis=2, keepdims=True) / keys * weight  # (B, Hkv, 1, Dv)
    group = shape[1] // v.shape[1]
    return join_heads(np.broadcast_to(mean[:, :, None], (*mean.shape[:2], group, 1, v.shape[3])), head_map)


@method(
    source="Vaswani et al. 2017, eq. 1, arXiv:1706.03762; grouped heads: Ainslie et al. 2023, arXiv:2305.13245",
    shapes=f"{SHAPES} -> b h l e",
    where=GROUPED,
    options=OPTIONS,
    conventions=CONVENTIONS,
    tunables=TUNABLES,
    visible=visible_keys,
    unread=unread_by(visible_keys),
)
def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: np.ndarray | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
    causal_alignment: str = "bottom-right",
    empty_row: str = "zeros",
    head_map: str = "grouped",
    window_bounds: str = "inclusive",
    softcap_order: str = "before-bias",
) -> Array:
    """Scaled dot-product attention: softmax(scale * q k^T) v over the allowed keys.

    Args:
        q: queries (B, Hq, Lq, D).
        k: keys (B, Hkv, Lk, D); query head h reads key/value head h // (Hq // Hkv).
        v: values (B, Hkv, Lk, Dv).
        mask: bool, broadcastable to (B, Hq, Lq, Lk); True means "may attend".
        bias: float, broadcastable likewise; added to the logits after the softcap (ALiBi, T5).
        causal: key j is allowed for query i iff j <= i + Lk - Lq.
        window: (left, right); allowed iff -left <= j - (i + Lk - Lq) <= right, None is unbounded.
        softcap: c; the logits become c * tanh(logits / c).
        scale: of the logits; 1 / sqrt(D) by default.
        sinks: (Hq,); a logit a head that joins the denominator only.

    Returns:
        (B, Hq, Lq, Dv); zeros for a row without allowed keys.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range.
    """
    out, _ = attention_with_lse.spec(
        q, k, v, mask=mask, bias=bias, causal=causal, window=window, softcap=softcap, scale=scale, sinks=sinks,
        causal_alignment=causal_alignment, empty_row=empty_row, head_map=head_map, window_bounds=window_bounds,
        softcap_order=softcap_order,
    )  # fmt: skip
    return out


@method(
    source="Dao et al. 2022, section 3.1, arXiv:2205.14135; Milakov and Gimelshein 2018, eq. 4, arXiv:1805.02867",
    shapes="outs: n b h l e, lses: statistic n b h l -> out: b h l e, lse: statistic b h l",
    conventions={"lse_base": ("e", "2")},
)
def merge_attention_states(outs: Array, lses: Array, *, lse_base: str = "e") -> tuple[Array, Array]:
    """Combine attention over disjoint sets of keys into attention over their union.

    Args:
        outs: results of the parts (N, B, H, L, Dv).
        lses: their logsumexps (N, B, H, L); a part with -inf weighs nothing, whatever finite numbers it holds.

    Returns:
        out (B, H, L, Dv) and lse (B, H, L); zeros and -inf where all parts are empty.
    """
    if lse_base == "2":
        lses = lses * np.log(number(2.0, like=lses))
    present = _is_present(lses)  # (B, H, L, N)
    weights, shift = shifted_exponentials(np.moveaxis(lses, 0, -1))
    nothing = ~present.any(axis=-1, keepdims=True)
    total = np.where(nothing, 1.0, np.sum(weights, axis=-1, keepdims=True))
    parts = np.moveaxis(outs, 0, -2)  # (B, H, L, N, Dv)
    merged = np.matmul(weights[..., None, :], parts)[..., 0, :]
    out = np.where(nothing, 0.0, merged / total)
    lse = np.where(nothing, -np.inf, logarithm(total) + shift)[..., 0]
    return out, lse if lse_base == "e" else lse / np.log(number(2.0, like=lses))


def _is_present(lses: Array) -> np.ndarray:
    """Which parts hold any key, (B, H, L, N): -inf is a fact of the input, not a rounded number."""
    values = getattr(lses, "value", lses)
    return np.moveaxis(np.asarray(values != -np.inf, dtype=bool), 0, -1)
