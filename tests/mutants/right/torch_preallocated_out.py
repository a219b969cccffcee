"""Work storage is allocated once and every step writes into it through out= or in place; only the fresh buffers are written."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None, block_q=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    out = torch.zeros(batch, heads, q_len, v.shape[3], dtype=torch.float32)
    if 0 in (batch, q_len, k_len):
        return out.to(q.dtype)
    scale = width**-0.5 if scale is None else float(scale)
    full = (batch, heads, q_len, k_len)
    mask = None if mask is None else mask.expand(full)
    bias = None if bias is None else bias.expand(full)
    keys = torch.empty(batch, heads, width, k_len)
    keys.copy_(k.repeat_interleave(group, dim=1).transpose(2, 3))
    values = torch.empty(batch, heads, k_len, v.shape[3])
    values.copy_(v.repeat_interleave(group, dim=1))
    storage = torch.empty(batch, heads, min(block_q, q_len), k_len)
    for start in range(0, q_len, block_q):
        stop = min(start + block_q, q_len)
        scores = storage if stop - start == storage.shape[2] else torch.empty(batch, heads, stop - start, k_len)
        torch.matmul(q[:, :, start:stop].float(), keys, out=scores)
        scores.mul_(scale)
        if softcap is not None:
            scores.div_(softcap).tanh_().mul_(softcap)
        if bias is not None:
            scores.add_(bias[:, :, start:stop])
        if causal:
            scores.masked_fill_(torch.arange(k_len) > torch.arange(start, stop)[:, None] + (k_len - q_len), -torch.inf)
        if mask is not None:
            scores.masked_fill_(~mask[:, :, start:stop], -torch.inf)
        highest = scores.amax(dim=-1, keepdim=True)
        highest.masked_fill_(highest == -torch.inf, 0.0)
        torch.sub(scores, highest, out=scores)
        torch.exp(scores, out=scores)
        total = scores.sum(dim=-1, keepdim=True)
        out[:, :, start:stop] = torch.matmul(scores, values).div_(total.masked_fill_(total == 0, 1.0))
    return out.to(q.dtype)
