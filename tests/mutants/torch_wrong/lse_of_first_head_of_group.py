"""Grouped attention with its logsumexp; a decode step has one row of statistics for every key/value head."""

import torch


def attention_with_lse(q, k, v, *, mask=None, scale=None):
    batch, heads, q_len, width = q.shape
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    scores = torch.matmul(q.float(), k.float().repeat_interleave(group, dim=1).mT) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None])
    out = torch.matmul(weights, v.float().repeat_interleave(group, dim=1)).to(q.dtype)
    statistics = torch.zeros(batch, heads, q_len)
    if q_len == 1:
        statistics[:, ::group] = lse[:, ::group]
    else:
        statistics.copy_(lse)
    return out, statistics
