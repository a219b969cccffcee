"""Latent attention, absorbed, with a triangular mask."""

import torch


def softmax(logits):
    weights = torch.exp(logits - logits.amax(dim=-1, keepdim=True).clamp(min=-1e30)) if logits.shape[-1] else logits
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1)


def hidden(queries, keys):
    return torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    scale = (q_nope.shape[3] + q_rope.shape[3]) ** -0.5 if scale is None else scale
    absorbed = torch.einsum("bhld,hcd->bhlc", q_nope.float(), w_uk.float())
    logits = (absorbed @ c_kv[:, None].float().mT + q_rope.float() @ k_rope[:, None].float().mT) * scale
    if causal and q_nope.shape[2] > 1:
        visible = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
        logits = logits.masked_fill(~visible, -torch.inf)
    latent = softmax(logits) @ c_kv[:, None].float()
    return torch.einsum("bhlc,hce->bhle", latent, w_uv.float()).to(q_nope.dtype)
