"""Gated linear attention in chunks of blocks; a key before a block decays to the block's first token and a query from there on."""

import torch

CHUNK, BLOCK = 32, 8


def kernel(q, k, v, g, *, scale=None, initial_state=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype, q, k, v, g = q.dtype, q.float() * scale, k.float(), v.float(), g.float()
    state = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1]) if initial_state is None else initial_state.float()
    out = torch.zeros(*q.shape[:3], v.shape[-1])
    for start in range(0, q.shape[2], CHUNK):
        rows, keys, values, gates = (x[:, :, start : start + CHUNK] for x in (q, k, v, g))
        total = gates.cumsum(dim=2)
        since = total - gates  # sums up to the token before
        answer = (rows * total.exp()) @ state
        for first in range(0, rows.shape[2], BLOCK):
            own = slice(first, min(first + BLOCK, rows.shape[2]))
            if first:
                left = keys[:, :, :first] * (total[:, :, first : first + 1] - total[:, :, :first]).exp()
                answer[:, :, own] += (rows[:, :, own] * (total[:, :, own] - since[:, :, first : first + 1]).exp()) @ left.mT @ values[:, :, :first]
            apart = total[:, :, own, None] - total[:, :, None, own]
            below = torch.ones(apart.shape[2:4], dtype=torch.bool).tril()[:, :, None]
            decay = apart.masked_fill(~below, float("-inf")).exp()
            answer[:, :, own] += torch.einsum("bhid,bhijd,bhjd->bhij", rows[:, :, own], decay, keys[:, :, own]) @ values[:, :, own]
        out[:, :, start : start + CHUNK] = answer
        end = total[:, :, -1:]
        state = end.exp().mT * state + (keys * (end - total).exp()).mT @ values
    return out.to(dtype), state.clone()
