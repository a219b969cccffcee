"""torch.softmax on rows that may be all -inf, whose NaN is then replaced: only an empty row can produce one."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys = k.float().repeat_interleave(group, dim=1)
    values = v.float().repeat_interleave(group, dim=1)
    logits = q.float() @ keys.mT * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias.float()
    if causal:
        future = torch.ones(q_len, k_len, dtype=torch.bool).triu(k_len - q_len + 1)
        logits = logits.masked_fill(future, float("-inf"))
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    weights = torch.nan_to_num(torch.softmax(logits, dim=-1), nan=0.0)
    return (weights @ values).to(q.dtype)
