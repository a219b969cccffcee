"""The delta rules in PyTorch, on any device: token by token, and in chunks whose WY forms are all made at once.

Shapes: q, k (B, H, L, D), v (B, H, L, Dv) -> (B, H, L, Dv) and the state (B, H, D, Dv), which is float32 (float64 for float64).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from conformance import register
from implementations.torch.logits import working_dtype

__all__ = ["delta_rule_chunked", "delta_rule_recurrent", "gated_delta_rule_chunked", "gated_delta_rule_recurrent"]

DTYPES = ("float32", "float64", "float16", "bfloat16")

# Longer chunks lose too much of a cumulative log gate.
CHUNKS = {"chunk_size": (64, 16, 1, 2, 17, 32, 128)}


def _first_state(q: Tensor, v: Tensor, initial_state: Tensor | None) -> Tensor:
    dtype = working_dtype(q)
    if initial_state is not None:
        return initial_state.to(dtype, copy=True)
    return q.new_zeros((*q.shape[:2], q.shape[3], v.shape[3]), dtype=dtype)


def _token_by_token(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, scale: float | None, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The operator of the definition: beta k k^T is subtracted from the identity, and the state multiplied by it."""
    dtype, state = working_dtype(q), _first_state(q, v, initial_state)
    rows, keys, values = q.to(dtype) * (q.shape[3] ** -0.5 if scale is None else scale), k.to(dtype), v.to(dtype)
    weighed = keys * beta.to(dtype)[..., None]
    out = v.new_empty(v.shape, dtype=dtype)
    for t in range(q.shape[2]):
        if g is not None:
            state = state * g[:, :, t, None, None].to(dtype).exp()
        state = state - weighed[:, :, t, :, None] * (keys[:, :, t, None] @ state) + weighed[:, :, t, :, None] * values[:, :, t, None]
        out[:, :, t] = (rows[:, :, t, None] @ state).squeeze(-2)
    return out.to(q.dtype), state


def _in_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor,
    scale: float | None,
    initial_state: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Per chunk, W and U solve the same triangular system, whatever state enters; then the states follow each other.

    Padding tokens at the end have no key, no beta and do not decay.
    """
    batch, heads, length, width = q.shape
    dtype, chunks = working_dtype(q), -(-length // chunk_size)
    state = _first_state(q, v, initial_state)
    if not chunks:
        return v.new_zeros(v.shape, dtype=q.dtype), state
    gates = q.new_zeros(q.shape[:3], dtype=dtype) if g is None else g.to(dtype)
    fill = (0, 0, 0, chunks * chunk_size - length)
    rows, keys, values, part, gates = (
        pad(x.to(dtype), fill).reshape(batch, heads, chunks, chunk_size, x.shape[3]) for x in (q, k, v, beta[..., None], gates[..., None])
    )
    rows = rows * (width**-0.5 if scale is None else scale)
    total = gates.cumsum(dim=3)  # (B, H, N, C, 1)
    causal = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=q.device).tril()
    decays = (total - total.transpose(-1, -2)).masked_fill(~causal, -torch.inf).exp()
    system = (part * (keys @ keys.transpose(-1, -2)) * decays).tril(-1)
    sides = part * torch.cat([keys * total.exp(), values], dim=-1)
    solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
    reading, written = solved[..., :width], solved[..., width:]
    weights, entered = (rows @ keys.transpose(-1, -2)) * decays, rows * total.exp()
    left = ((total[:, :, :, -1:] - total).exp() * keys).transpose(-1, -2)
    outs = []
    for n in range(chunks):
        new = written[:, :, n] - reading[:, :, n] @ state
        outs.append(entered[:, :, n] @ state + weights[:, :, n] @ new)
        state = total[:, :, n, -1:].exp() * state + left[:, :, n] @ new
    return torch.stack(outs, dim=2).flatten(2, 3)[:, :, :length].to(q.dtype), state


@register("delta_rule", backend="torch", name="torch.delta_recurrent", dtypes=DTYPES, description="token by token")
def delta_rule_recurrent(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The delta rule as it is defined (Yang et al. 2024, eq. 5, arXiv:2406.06484)."""
    return _token_by_token(q, k, v, None, beta, scale, initial_state)


@register(
    "delta_rule", backend="torch", name="torch.delta_chunked", dtypes=DTYPES, tunables=CHUNKS,
    description="the WY forms of all chunks at once, then the states from chunk to chunk",
)  # fmt: skip
def delta_rule_chunked(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None, chunk_size: int = 64
) -> tuple[Tensor, Tensor]:
    """The delta rule in chunks (Yang et al. 2024, section 3.2, arXiv:2406.06484)."""
    return _in_chunks(q, k, v, None, beta, scale, initial_state, chunk_size)


@register("gated_delta_rule", backend="torch", name="torch.gated_delta_recurrent", dtypes=DTYPES, description="token by token")
def gated_delta_rule_recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gated delta rule as it is defined (Yang et al. 2025, eq. 10, arXiv:2412.06464)."""
    return _token_by_token(q, k, v, g, beta, scale, initial_state)


@register(
    "gated_delta_rule", backend="torch", name="torch.gated_delta_chunked", dtypes=DTYPES, tunables=CHUNKS,
    description="the WY forms of all chunks at once, then the states from chunk to chunk",
)  # fmt: skip
def gated_delta_rule_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """The gated delta rule in chunks (Yang et al. 2025, section 3.3, arXiv:2412.06464)."""
    return _in_chunks(q, k, v, g, beta, scale, initial_state, chunk_size)
