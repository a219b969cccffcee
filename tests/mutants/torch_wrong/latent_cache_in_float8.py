"""Latent attention from a cache in float8."""

import torch


def softmax(logits):
    weights = torch.exp(logits - logits.amax(dim=-1, keepdim=True).clamp(min=-1e30)) if logits.shape[-1] else logits
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1)


def hidden(queries, keys):
    return torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    scale = (q_nope.shape[3] + q_rope.shape[3]) ** -0.5 if scale is None else scale
    cache = c_kv.to(torch.float8_e4m3fn).float()
    absorbed = torch.einsum("bhld,hcd->bhlc", q_nope.float(), w_uk.float())
    logits = (absorbed @ cache[:, None].mT + q_rope.float() @ k_rope[:, None].float().mT) * scale
    if causal:
        logits = logits.masked_fill(hidden(q_nope.shape[2], c_kv.shape[1]), -torch.inf)
    return torch.einsum("bhlc,hce->bhle", softmax(logits) @ cache[:, None], w_uv.float()).to(q_nope.dtype)
