"""Gated linear attention, chunk by chunk, with the decays of a chunk taken relative to its last token."""

import torch


def kernel(q, k, v, g, *, scale=None, initial_state=None, chunk_size=16):
    batch, heads, length, dim = q.shape
    scale = dim**-0.5 if scale is None else scale
    q, k, v, g, dtype = q.float() * scale, k.float(), v.float(), g.float(), q.dtype
    state = torch.zeros(batch, heads, dim, v.shape[-1]) if initial_state is None else initial_state.float()
    out = torch.zeros(batch, heads, length, v.shape[-1])
    for start in range(0, length, chunk_size):
        stop = min(start + chunk_size, length)
        rows, keys, values, gates = (x[:, :, start:stop] for x in (q, k, v, g))
        total = gates.cumsum(dim=2)
        inter = (rows * total.exp()) @ state
        size = stop - start
        mask = torch.ones(size, size, dtype=torch.bool).tril(-1)
        decay = (total[:, :, :, None] - total[:, :, None, :]).masked_fill(~mask[:, :, None], float("-inf")).exp()
        scores = (rows[:, :, :, None] * decay * keys[:, :, None]).sum(dim=-1)
        out[:, :, start:stop] = inter + scores @ values
        kept = total[:, :, -1:]
        state = kept.exp().transpose(-1, -2) * state + (keys * (kept - total).exp()).transpose(-1, -2) @ values
    return out.to(dtype), state.clone()
