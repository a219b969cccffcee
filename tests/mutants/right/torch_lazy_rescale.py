"""Lazy rescaling for a whole tile: the shift of all rows stays until some row's base-two maximum has grown by more than 8."""

import math

import torch


def _finite(shift):
    return shift.masked_fill(shift == -torch.inf, 0.0)


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_q=64, block_k=16):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys, values = k.float().repeat_interleave(group, dim=1), v.float().repeat_interleave(group, dim=1)
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    visible = visible.tril(k_len - q_len) if causal else visible
    visible = (visible if mask is None else visible & mask).expand(batch, heads, q_len, k_len)
    out = torch.empty(batch, heads, q_len, v.shape[3], dtype=q.dtype)
    for row in range(0, q_len, block_q):
        rows = slice(row, min(row + block_q, q_len))
        queries = q[:, :, rows].float() * (scale * math.log2(math.e))
        shift = torch.full((batch, heads, rows.stop - rows.start, 1), -torch.inf)
        highest = shift
        total = torch.zeros_like(shift)
        weighted = torch.zeros(batch, heads, rows.stop - rows.start, v.shape[3])
        for start in range(0, k_len, block_k):
            tile = slice(start, min(start + block_k, k_len))
            powers = (queries @ keys[:, :, tile].mT).masked_fill(~visible[:, :, rows, tile], -torch.inf)
            new_highest = torch.maximum(highest, powers.amax(dim=-1, keepdim=True))
            # a row's first key counts as growth, x - -inf; a row without any key is -inf - -inf, NaN, and does not
            if bool((new_highest - shift > 8).any()):
                # two factors: one could be subnormal, and its lost digits be magnified by sums that exceed one
                to_highest = torch.exp2(shift - _finite(highest))
                to_new = torch.exp2(highest - _finite(new_highest))
                total, weighted = total * to_highest * to_new, weighted * to_highest * to_new
                shift = new_highest
            highest = new_highest
            weights = torch.exp2(powers - _finite(shift))
            total = total + weights.sum(dim=-1, keepdim=True)
            weighted = weighted + weights.to(q.dtype).float() @ values[:, :, tile]
        out[:, :, rows] = (weighted / total.masked_fill(total == 0, 1.0)).to(q.dtype)
    return out
