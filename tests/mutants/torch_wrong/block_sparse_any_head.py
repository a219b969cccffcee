"""Block-sparse FlashAttention: tiles of keys that the block mask leaves out are skipped."""

import torch


def kernel(q, k, v, *, block_mask, block_q, block_k, causal=False, scale=None):
    batch, heads, queries, dim = q.shape
    keys = k.shape[2]
    group = heads // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1).float() for x in (k, v))
    scale = dim**-0.5 if scale is None else scale
    mask = block_mask.expand(batch, heads, *block_mask.shape[2:])
    out = torch.zeros(batch, heads, queries, v.shape[-1])
    for m in range(mask.shape[2]):
        rows = torch.arange(m * block_q, min((m + 1) * block_q, queries))
        top = torch.full((batch, heads, len(rows), 1), float("-inf"))
        total = torch.zeros_like(top)
        gathered = torch.zeros(batch, heads, len(rows), v.shape[-1])
        for n in range(mask.shape[3]):
            if not mask[:, :, m, n].any():
                continue
            columns = torch.arange(n * block_k, min((n + 1) * block_k, keys))
            scores = q[:, :, rows].float() @ k[:, :, columns].transpose(-1, -2) * scale
            hidden = torch.zeros(1, 1, 1, 1, dtype=torch.bool)
            if causal:
                hidden = hidden | (columns[None, :] > rows[:, None] + keys - queries)
            scores = scores.masked_fill(hidden, float("-inf"))
            raised = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
            shift = torch.where(raised.isinf(), torch.zeros_like(raised), raised)
            weights, decay = torch.exp(scores - shift), torch.exp(top - shift)
            total = total * decay + weights.sum(dim=-1, keepdim=True)
            gathered = gathered * decay + weights @ v[:, :, columns]
            top = raised
        out[:, :, rows] = gathered / torch.where(total > 0, total, torch.ones_like(total))
    return out.to(q.dtype)
