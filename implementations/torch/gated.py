"""Attention with decay in PyTorch: in chunks whose decays are taken relative to the chunk's middle, and all at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from conformance import register
from implementations.torch.devices import where_its_arguments_are
from implementations.torch.logits import working_dtype

__all__ = ["gated_chunked", "retention_parallel"]

# A chunk holds the decay between any two of its tokens in every key dimension.
SHORT_CHUNKS = (16, 1, 2, 5, 17, 32, 64)
DTYPES = ("float32", "float64", "float16", "bfloat16")


@register(
    "gated_linear_attention", backend="torch", name="torch.gated_chunked", dtypes=DTYPES, tunables={"chunk_size": SHORT_CHUNKS},
    description="all chunks at once within themselves, then the states from chunk to chunk",
)  # fmt: skip
@where_its_arguments_are
def gated_chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None, chunk_size: int = 16
) -> tuple[Tensor, Tensor]:
    """Padding tokens at the end have no key and do not decay."""
    batch, heads, length, width = q.shape
    dtype, chunks = working_dtype(q), -(-length // chunk_size)
    fill = (0, 0, 0, chunks * chunk_size - length)
    rows, keys, values, gates = (pad(x.to(dtype), fill).reshape(batch, heads, chunks, chunk_size, x.shape[3]) for x in (q, k, v, g))
    rows = rows * (width**-0.5 if scale is None else scale)
    total = gates.cumsum(dim=3)
    causal = torch.ones(chunk_size, chunk_size, dtype=torch.bool).tril()[:, :, None]
    decays = (total[:, :, :, :, None] - total[:, :, :, None]).masked_fill(~causal, -torch.inf).exp()
    weights = torch.einsum("bhnid,bhnijd,bhnjd->bhnij", rows, decays, keys)
    out = weights @ values
    added = ((total[:, :, :, -1:] - total).exp() * keys).transpose(-1, -2) @ values
    state = q.new_zeros((batch, heads, width, v.shape[3]), dtype=dtype) if initial_state is None else initial_state.to(dtype)
    entering = []
    for n in range(chunks):
        entering.append(state)
        state = total[:, :, n, -1].exp().unsqueeze(-1) * state + added[:, :, n]
    if entering:
        out = out + (rows * total.exp()) @ torch.stack(entering, dim=2)
    final = state.clone() if initial_state is not None and not chunks else state
    return out.flatten(2, 3)[:, :, :length].to(q.dtype), final


@register(
    "retention", backend="torch", name="torch.retention_parallel", dtypes=DTYPES,
    description="all weights at once, as in training",
)  # fmt: skip
@where_its_arguments_are
def retention_parallel(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *, scale: float | None = None) -> Tensor:
    """The weights of a causal product, times powers of the decay; no state."""
    dtype = working_dtype(q)
    distance = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])
    powers = torch.where(distance >= 0, decay.to(dtype)[:, None, None] ** distance.clamp(min=0), 0)
    weights = q.to(dtype) @ k.to(dtype).transpose(-1, -2) * (q.shape[3] ** -0.5 if scale is None else scale) * powers
    return (weights @ v.to(dtype)).to(q.dtype)
