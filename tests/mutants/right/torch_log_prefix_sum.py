"""The denominator is the last entry of torch.logcumsumexp, a running log-sum over the keys, kept in float64."""

import torch


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, v.shape[3])
    scale = width**-0.5 if scale is None else float(scale)
    # (B, Hkv, group, Lq, D) against (B, Hkv, 1, D, Lk)
    queries = q.float().unflatten(1, (k.shape[1], group)) * scale
    logits = queries @ k.float().unsqueeze(2).mT
    logits = logits.flatten(1, 2).double()
    if causal:
        past = torch.ones(q_len, k_len, dtype=torch.bool).tril(k_len - q_len)
        logits = torch.where(past, logits, -torch.inf)
    if mask is not None:
        logits = torch.where(mask, logits, -torch.inf)
    lse = torch.logcumsumexp(logits, dim=-1)[..., -1:]
    weights = torch.exp(logits - torch.where(lse == -torch.inf, 0.0, lse)).float()
    out = weights.unflatten(1, (k.shape[1], group)) @ v.float().unsqueeze(2)
    return out.flatten(1, 2).to(q.dtype)
