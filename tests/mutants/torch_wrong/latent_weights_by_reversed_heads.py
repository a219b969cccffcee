"""Latent attention, absorbed; values are expanded head by head from the last."""

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
    logits = absorbed @ c_kv[:, None].float().mT + q_rope.float() @ k_rope[:, None].float().mT
    logits = logits * scale
    if causal:
        logits = logits.masked_fill(hidden(q_nope.shape[2], c_kv.shape[1]), -torch.inf)
    latent = softmax(logits) @ c_kv[:, None].float()
    heads = [latent[:, head] @ w_uv[-1 - head].float() for head in range(latent.shape[1])]
    return torch.stack(heads, dim=1).to(q_nope.dtype)
