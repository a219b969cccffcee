"""Key tiles from last to first in base two, the weights of each tile cast to the storage dtype before the second product."""

import math

import torch


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, block_k=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.float() * (scale * math.log2(math.e))
    positions = torch.arange(q_len)[:, None] + k_len - q_len
    left, right = (None, None) if window is None else window
    if mask is not None:
        mask = mask.broadcast_to(batch, heads, q_len, k_len)
    highest = torch.full((batch, heads, q_len, 1), -torch.inf)
    total = torch.zeros(batch, heads, q_len, 1)
    weighted = torch.zeros(batch, heads, q_len, v.shape[3])
    for start in reversed(range(0, k_len, block_k)):
        stop = min(start + block_k, k_len)
        columns = torch.arange(start, stop)
        keys = k[:, :, start:stop].float().repeat_interleave(group, dim=1)
        values = v[:, :, start:stop].float().repeat_interleave(group, dim=1)
        allowed = torch.ones(q_len, stop - start, dtype=torch.bool)
        if causal:
            allowed &= columns <= positions
        if left is not None:
            allowed &= columns >= positions - left
        if right is not None:
            allowed &= columns <= positions + right
        if mask is not None:
            allowed = allowed & mask[..., start:stop]
        powers = torch.where(allowed, queries @ keys.mT, -torch.inf)
        new_highest = torch.maximum(highest, powers.amax(dim=-1, keepdim=True))
        shift = torch.where(new_highest == -torch.inf, 0.0, new_highest)
        weights, rescale = torch.exp2(powers - shift), torch.exp2(highest - shift)
        total = total * rescale + weights.sum(dim=-1, keepdim=True)
        weighted = weighted * rescale + weights.to(q.dtype).float() @ values
        highest = new_highest
    return (weighted / torch.where(total == 0, 1.0, total)).to(q.dtype)
