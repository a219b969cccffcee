"""Gated linear attention in chunks: the decays between all pairs of tokens at once, the later ones of each pair masked by a product."""

import torch


def kernel(q, k, v, g, *, scale=None, initial_state=None, chunk_size=16):
    batch, heads, length, dim = q.shape
    scale = dim**-0.5 if scale is None else scale
    dtype, q, k, v, g = q.dtype, q.float() * scale, k.float(), v.float(), g.float()
    state = torch.zeros(batch, heads, dim, v.shape[-1]) if initial_state is None else initial_state.float()
    out = torch.zeros(batch, heads, length, v.shape[-1])
    for start in range(0, length, chunk_size):
        rows, keys, values, gates = (x[:, :, start : start + chunk_size] for x in (q, k, v, g))
        total, size = gates.cumsum(dim=2), rows.shape[2]
        decay = (total[:, :, :, None] - total[:, :, None]).exp()
        scores = torch.einsum("bhid,bhijd,bhjd->bhij", rows, decay, keys) * torch.ones(size, size).tril()
        out[:, :, start : start + size] = scores @ values + (rows * total.exp()) @ state
        end = total[:, :, -1:]
        state = end.exp().mT * state + (keys * (end - total).exp()).mT @ values
    return out.to(dtype), state.clone()
