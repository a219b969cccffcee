"""The delta rule: a state of D x Dv numbers that replaces what a key stands for, and its form with decay.

Yang et al. 2024, eq. 5, arXiv:2406.06484; with decay: Yang et al. 2025, eq. 10, arXiv:2412.06464. Kernels compute them token
by token, or in chunks whose written values solve a triangular system (the WY form); the budget admits both.

The state's operator contracts where keys are no longer than sqrt(2 / beta), which the running bound cannot see: it grows
like (1 + beta)**L. So the budget is the perturbed reading's where that is smaller.

Shapes: B batch, H heads, L length, D query/key width, Dv value width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.ops import number
from oracle.readings.recurrences import decays, in_one_chunk
from oracle.readings.replaced_values import replaced_values

__all__ = ["delta_rule", "gated_delta_rule"]

Array = Any  # an ndarray of floats or balls, or one of the readings' arrays

# A token costs what so many numbers do, as the loop over tokens is Python's; and there are many samples of a state.
COST = "l * (600 + 3 * b * h * d * e)"


def _recurrence(
    q: Array, k: Array, v: Array, decay: Array | None, beta: Array, scale: float | None, state: Array | None
) -> tuple[Array, Array]:
    """S_t = decay_t (S_{t-1} - beta_t k_t^T k_t S_{t-1}) + beta_t k_t^T v_t and o_t = scale q_t S_t; decay (B, H, L, 1) or None."""
    scale = 1 / np.sqrt(number(q.shape[-1], like=q)) if scale is None else scale
    if state is None:
        state = np.zeros((*q.shape[:2], q.shape[3], v.shape[3]))
    out, state = replaced_values(state, q, k, v, beta, decay)
    return in_one_chunk(out * scale, state, k, beta)


@method(
    source="Yang et al. 2024, eq. 5, arXiv:2406.06484",
    shapes="q: b h l d, k: b h l d, v: b h l e, beta: b h l, initial_state?: statistic b h d e -> out: b h l e, state?: statistic b h d e",
    options={"scale": "real"},
    domains={"beta": "fraction"},
    tunables=("chunk_size",),
    cost=COST,
    contracting=True,
)
def delta_rule(
    q: Array, k: Array, v: Array, beta: Array, *, scale: float | None = None, initial_state: Array | None = None
) -> tuple[Array, Array]:
    """Linear attention that replaces the value of a key instead of adding to it.

    S_t = (I - beta_t k_t^T k_t) S_{t-1} + beta_t k_t^T v_t, and o_t = scale q_t S_t. Keys are taken as they come: with rows
    longer than sqrt(2 / beta) the state, and every rounding error in it, may grow from token to token.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D); models normalise them to length 1.
        v: values (B, H, L, Dv).
        beta: which part of the value is replaced (B, H, L), from 0 to 1.
        scale: of the outputs; 1 / sqrt(D) by default.
        initial_state: S_0 (B, H, D, Dv); zeros by default.

    Returns:
        out (B, H, L, Dv) and the final state S_L (B, H, D, Dv), which an implementation may leave out.

    Raises:
        OptionError: a beta lies outside its range.
    """
    return _recurrence(q, k, v, None, beta, scale, initial_state)


@method(
    source="Yang et al. 2025, eq. 10, arXiv:2412.06464",
    shapes="q: b h l d, k: b h l d, v: b h l e, g: b h l, beta: b h l, initial_state?: statistic b h d e "
    "-> out: b h l e, state?: statistic b h d e",
    options={"scale": "real"},
    domains={"g": "log-gate", "beta": "fraction"},
    tunables=("chunk_size",),
    cost=COST,
    contracting=True,
)
def gated_delta_rule(
    q: Array, k: Array, v: Array, g: Array, beta: Array, *, scale: float | None = None, initial_state: Array | None = None
) -> tuple[Array, Array]:
    """The delta rule on a state that forgets: it decays before the value of the key is replaced.

    S_t = exp(g_t) (I - beta_t k_t^T k_t) S_{t-1} + beta_t k_t^T v_t, and o_t = scale q_t S_t.

    Args:
        q: queries (B, H, L, D).
        k: keys (B, H, L, D); models normalise them to length 1.
        v: values (B, H, L, Dv).
        g: logarithms of the decays (B, H, L), at most 0.
        beta: which part of the value is replaced (B, H, L), from 0 to 1.
        scale: of the outputs; 1 / sqrt(D) by default.
        initial_state: S_0 (B, H, D, Dv); zeros by default.

    Returns:
        out (B, H, L, Dv) and the final state S_L (B, H, D, Dv), which an implementation may leave out.

    Raises:
        OptionError: a gate is positive, or a beta lies outside its range.
    """
    return _recurrence(q, k, v, decays(g[..., None]), beta, scale, initial_state)
