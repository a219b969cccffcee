"""Two-pass attention: unnormalised weights first, one division by the row sum at the end."""

import torch


def row_softmax_parts(scores):
    """Unnormalised weights and their row sum; both zero for a row that is entirely -inf."""
    if scores.shape[-1] == 0:
        return scores, scores.sum(dim=-1, keepdim=True)
    top = scores.amax(dim=-1, keepdim=True)
    weights = (scores - top.masked_fill(top == -torch.inf, 0.0)).exp()
    return weights, weights.sum(dim=-1, keepdim=True)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    group = q.shape[1] // k.shape[1]
    q_len, k_len = q.shape[2], k.shape[2]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    scores = q.float() @ k.float().repeat_interleave(group, dim=1).mT * scale
    if causal:
        future = torch.ones(q_len, k_len, dtype=torch.bool).triu(1 + k_len - q_len)
        scores.masked_fill_(future, -torch.inf)
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    weights, total = row_softmax_parts(scores)
    context = weights @ v.float().repeat_interleave(group, dim=1)
    total = total.masked_fill(total == 0, 1.0)
    return context.to(q.dtype) / total.to(q.dtype)
