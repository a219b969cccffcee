"""Latent attention with SDPA over both parts; the rotated keys are viewed as if each head had its own."""

import torch


def softmax(logits):
    weights = torch.exp(logits - logits.amax(dim=-1, keepdim=True).clamp(min=-1e30)) if logits.shape[-1] else logits
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1)


def hidden(queries, keys):
    return torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    batch, heads, queries, _ = q_nope.shape
    keys, width = k_rope.shape[1:]
    scale = (q_nope.shape[3] + width) ** -0.5 if scale is None else scale
    k = torch.einsum("bsc,hcd->bhsd", c_kv.float(), w_uk.float())
    shared = k_rope.float().repeat(1, heads, 1).reshape(batch, keys, heads, width).transpose(1, 2)
    logits = (q_nope.float() @ k.mT + q_rope.float() @ shared.mT) * scale
    if causal:
        logits = logits.masked_fill(hidden(queries, keys), -torch.inf)
    return (softmax(logits) @ torch.einsum("bsc,hce->bhse", c_kv.float(), w_uv.float())).to(q_nope.dtype)
