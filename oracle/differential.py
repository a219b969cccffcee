"""Differential attention: one softmax attention less a part of another, so that what both attend to cancels.

Ye et al. 2024, arXiv:2410.05258, eq. 1 and 3. Every function runs on float64 arrays, on `Bounded` arrays and on Arb balls.

Where both maps are nearly alike and ``lam`` is near 1 the difference is small and its error is not: the budget is relative to the
two results, never to their difference.

Shapes: B batch, Hq query heads, Hkv key/value heads, Lq and Lk lengths, D query/key width, Dv value width.
"""

from __future__ import annotations

from typing import Any

from oracle.catalogue import method
from oracle.dense import GROUPED, attention
from oracle.readings.features import constant
from oracle.readings.ops import as_stored, number, rms_normalised

__all__ = ["differential_attention"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings


@method(
    source="Ye et al. 2024, eq. 1 and 3, arXiv:2410.05258",
    shapes="q1: b h l d, k1: b g s d, q2: b h l d, k2: b g s d, v: b g s e, v2?: b g s e -> b h l e",
    where=GROUPED,
    options={"lam": "real", "causal": "flag", "scale": "real", "lam_init": "real", "eps": "guard"},
    conventions={"causal_alignment": ("bottom-right", "top-left")},
    tunables=("block_q", "block_k"),
    refusable={"h == g": "grouped heads"},
)
def differential_attention(
    q1: Array,
    k1: Array,
    q2: Array,
    k2: Array,
    v: Array,
    *,
    lam: float,
    v2: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    lam_init: float | None = None,
    eps: float = 1e-5,
    causal_alignment: str = "bottom-right",
) -> Array:
    """The difference of two attentions: softmax(scale q1 k1^T) v - lam softmax(scale q2 k2^T) v.

    Args:
        q1, q2: queries of the two maps (B, Hq, Lq, D).
        k1, k2: keys of the two maps (B, Hkv, Lk, D); query head h reads key/value head h // (Hq // Hkv).
        v: values (B, Hkv, Lk, Dv).
        lam: how much of the second map is taken away.
        v2: values of the second map (B, Hkv, Lk, Dv); those of the first by default.
        causal: key j is allowed for query i iff j <= i + Lk - Lq.
        scale: of the logits of both maps; 1 / sqrt(D) by default.
        lam_init: if given, every row of every head is divided by its root mean square and multiplied by 1 - lam_init.
        eps: what is added to the mean square of a row before its root is taken.

    Returns:
        (B, Hq, Lq, Dv); zeros for a row without allowed keys.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is missing, unknown or out of range.
    """
    options = {"causal": causal, "scale": scale, "causal_alignment": causal_alignment}
    first = attention.spec(q1, k1, v, **options)
    second = attention.spec(q2, k2, v if v2 is None else v2, **options)
    # A kernel of 16 bits that calls a fused attention twice rounds every intermediate result.
    out = as_stored(first) - as_stored(as_stored(second) * constant(lam, second))
    if lam_init is None:
        return out
    part = 1 - number(lam_init, like=out)
    return as_stored(rms_normalised(as_stored(out), eps)) * part
