"""Absorbed latent attention whose scale sits in the queries' projection, keys summed in two halves of the cache and merged."""

import torch


def part(q, cache, latent, hidden):
    logits = (q @ cache.mT).masked_fill(hidden, -torch.inf)
    if logits.shape[-1] == 0:
        return q.new_zeros((*q.shape[:3], latent.shape[-1])), q.new_full((*q.shape[:3], 1), -torch.inf)
    lse = torch.logsumexp(logits, dim=-1, keepdim=True)
    return torch.exp(logits - lse.clamp(min=-1e30)) @ latent, lse


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    queries, keys = q_nope.shape[2], c_kv.shape[1]
    scale = (q_nope.shape[3] + q_rope.shape[3]) ** -0.5 if scale is None else scale
    q = torch.cat([q_nope.float() @ (scale * w_uk.float()).mT, scale * q_rope.float()], dim=3)
    cache, latent = torch.cat([c_kv, k_rope], dim=2).float()[:, None], c_kv.float()[:, None]
    hidden = torch.arange(keys) - torch.arange(queries)[:, None] > keys - queries
    hidden = hidden & torch.tensor(causal)
    half = keys // 2
    results = [part(q, cache[:, :, s], latent[:, :, s], hidden[:, s]) for s in (slice(0, half), slice(half, keys))]
    shares = torch.softmax(torch.cat([lse for _, lse in results], dim=3), dim=3).nan_to_num(0)
    gathered = sum(share[..., None] * out for share, (out, _) in zip(shares.unbind(3), results, strict=True))
    return (gathered @ w_uv.float()).to(q_nope.dtype)
