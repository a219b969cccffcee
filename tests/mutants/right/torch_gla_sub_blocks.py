"""Gated linear attention in chunks of blocks: decays are taken relative to the first token of the query's block.

A key before the block decays up to that token and a query from it on, so that both factors are at most 1 and nothing is divided;
within a block every pair has an exponential of its own (Yang et al. 2023, section 4.3).
"""

import torch

CHUNK, BLOCK = 32, 8


def kernel(q, k, v, g, *, scale=None, initial_state=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype, q, k, v, g = q.dtype, q.float() * scale, k.float(), v.float(), g.float()
    state = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1]) if initial_state is None else initial_state.float()
    out = torch.zeros(*q.shape[:3], v.shape[-1])
    for start in range(0, q.shape[2], CHUNK):
        rows, keys, values, gates = (x[:, :, start : start + CHUNK] for x in (q, k, v, g))
        total, size = gates.cumsum(dim=2), rows.shape[2]
        answer = (rows * total.exp()) @ state
        for first in range(0, size, BLOCK):
            own = slice(first, min(first + BLOCK, size))
            if first:
                border = total[:, :, first - 1 : first]
                left = keys[:, :, :first] * (border - total[:, :, :first]).exp()
                answer[:, :, own] += (rows[:, :, own] * (total[:, :, own] - border).exp()) @ left.mT @ values[:, :, :first]
            apart = total[:, :, own, None] - total[:, :, None, own]
            below = torch.ones(apart.shape[2:4], dtype=torch.bool).tril()[:, :, None]
            decay = apart.masked_fill(~below, float("-inf")).exp()
            answer[:, :, own] += torch.einsum("bhid,bhijd,bhjd->bhij", rows[:, :, own], decay, keys[:, :, own]) @ values[:, :, own]
        out[:, :, start : start + size] = answer
        end = total[:, :, -1:]
        state = end.exp().mT * state + (keys * (end - total).exp()).mT @ values
    return out.to(dtype), state.clone()
