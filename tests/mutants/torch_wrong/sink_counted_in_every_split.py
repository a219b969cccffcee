"""Split-K attention with sinks: every split returns its partial result and logsumexp, a last step merges them."""

import torch


def partial_attention(q, k, v, visible, scale, sinks):
    """Normalised output and logsumexp of one split."""
    scores = (q @ k.mT * scale).masked_fill(~visible, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], dim=-1)
    lse = torch.logsumexp(scores, dim=-1, keepdim=True)
    shift = torch.where(lse == -torch.inf, 0.0, lse)
    return torch.exp(scores[..., : k.shape[2]] - shift) @ v, lse


def kernel(q, k, v, *, mask=None, causal=False, scale=None, sinks=None, block_k=128):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    if k_len == 0:
        return q.new_zeros(batch, heads, q_len, v.shape[3])
    visible = torch.ones(q_len, k_len, dtype=torch.bool)
    if causal:
        visible = visible.tril(k_len - q_len)
    if mask is not None:
        visible = visible & mask
    visible = visible.expand(batch, heads, q_len, k_len)
    keys, values = k.float().repeat_interleave(group, 1), v.float().repeat_interleave(group, 1)
    sinks = None if sinks is None else sinks.float().view(1, heads, 1, 1)
    parts = []
    for start in range(0, k_len, block_k):
        split = slice(start, start + block_k)
        parts.append(partial_attention(q.float(), keys[:, :, split], values[:, :, split], visible[..., split], scale, sinks))
    outs, lses = torch.stack([part[0] for part in parts]), torch.stack([part[1] for part in parts])
    total = torch.logsumexp(lses, dim=0)
    weights = torch.exp(lses - torch.where(total == -torch.inf, 0.0, total))
    return (outs * weights).sum(0).to(q.dtype)
