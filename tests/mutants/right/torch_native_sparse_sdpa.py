"""NSA on top of scaled_dot_product_attention, in the dtype of its arguments: summaries, branches and gating are rounded to it."""

import torch
from torch.nn.functional import scaled_dot_product_attention


def attend(q, k, v, mask, scale):
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return torch.where(mask.any(dim=-1, keepdim=True), out, torch.zeros((), dtype=q.dtype))


def kernel(q, k, v, gates, *, compress_block, compress_stride, select_block, select_count, window, compress_weights=None, scale=None):
    batch, heads, length, dim = q.shape
    if q.numel() == 0 or v.shape[-1] == 0:
        return q.new_zeros(batch, heads, length, v.shape[-1])
    groups = k.shape[1]
    scale = dim**-0.5 if scale is None else scale
    rows = torch.arange(length).unsqueeze(1)
    causal = rows.T <= rows
    starts = torch.arange(0, max(length - compress_block + 1, 0), compress_stride)
    weights = torch.full((compress_block,), 1 / compress_block) if compress_weights is None else compress_weights.float()
    pooled = [
        torch.einsum("bgnld,l->bgnd", x[:, :, starts.unsqueeze(1) + torch.arange(compress_block)].float(), weights).to(q.dtype)
        for x in (k, v)
    ]
    full = [x.repeat_interleave(heads // groups, dim=1) for x in (*pooled, k, v)]
    whole = (starts + compress_block - 1 <= rows).expand(batch, heads, length, len(starts))
    blocks = -(-length // select_block)
    importance = torch.zeros(batch, groups, length, blocks)
    compressed = torch.zeros_like(q[..., :1])
    if len(starts):
        compressed = attend(q, full[0], full[1], whole, scale)
        logits = (q.float() @ full[0].float().mT * scale).masked_fill(~whole, -torch.inf)
        probs = torch.softmax(logits, dim=-1).nan_to_num(0.0).unflatten(1, (groups, -1)).sum(dim=2)
        for i, start in enumerate(starts.tolist()):
            for stride in range(start, start + compress_block, compress_stride):
                importance[..., stride // select_block] += probs[..., i]
    importance = importance.masked_fill(torch.arange(blocks) * select_block > rows, -1.0)
    best = torch.sort(importance, dim=-1, descending=True, stable=True).indices[..., :select_count]
    chosen = torch.zeros_like(importance).scatter_(-1, best, 1.0).bool()
    mask = chosen.repeat_interleave(select_block, dim=-1)[..., :length].repeat_interleave(heads // groups, dim=1) & causal
    selected = attend(q, full[2], full[3], mask, scale)
    near = attend(q, full[2], full[3], (causal & (rows - rows.T < window)).expand_as(mask), scale)
    return compressed * gates[..., 0:1] + selected * gates[..., 1:2] + near * gates[..., 2:3]
