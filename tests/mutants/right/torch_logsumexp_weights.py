"""Weights as exp(s - lse) with torch.logsumexp; an empty row's lse is replaced before it is subtracted."""

import torch


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    scale = width**-0.5 if scale is None else float(scale)
    head_map = torch.arange(heads) // (heads // kv_heads)
    logits = torch.matmul(q.float(), k.float()[:, head_map].transpose(-1, -2)).mul(scale)
    if softcap is not None:
        logits = logits.div(softcap).tanh().mul(softcap)
    if bias is not None:
        logits = logits.add(bias.float())
    distance = torch.arange(k_len)[None, :] - torch.arange(k_len - q_len, k_len)[:, None]
    if causal:
        logits = logits.masked_fill(distance > 0, -torch.inf)
    if window is not None:
        left, right = window
        logits = logits if left is None else logits.masked_fill(distance < -left, -torch.inf)
        logits = logits if right is None else logits.masked_fill(distance > right, -torch.inf)
    if mask is not None:
        logits = logits.masked_fill(mask.logical_not(), -torch.inf)
    lse = torch.logsumexp(logits.double(), dim=-1, keepdim=True)
    if sinks is not None:
        lse = torch.logaddexp(lse, sinks.double()[:, None, None])
    lse = lse.masked_fill(lse == -torch.inf, 0.0)
    weights = torch.exp(logits - lse).float()
    return torch.matmul(weights, v.float()[:, head_map]).to(q.dtype)
