"""The second map as further keys whose values are negative: one weighted sum over 2 Lk keys."""

import torch


def kernel(q1, k1, q2, k2, v, *, lam, v2=None, causal=False, scale=None, lam_init=None, eps=1e-5):
    group, width = q1.shape[1] // k1.shape[1], q1.shape[3]
    scale = width**-0.5 if scale is None else scale
    maps = []
    for q, k in ((q1, k1), (q2, k2)):
        logits = torch.einsum("bhgld,bhsd->bhgls", q.float().unflatten(1, (-1, group)), k.float()).flatten(1, 2) * scale
        if causal:
            visible = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
            logits = logits.masked_fill(~visible, -torch.inf)
        empty = torch.isneginf(logits).all(dim=-1, keepdim=True)
        maps.append(torch.softmax(logits, dim=-1).masked_fill(empty, 0))
    values = torch.cat([v.float(), -lam * (v if v2 is None else v2).float()], dim=2).repeat_interleave(group, dim=1)
    out = torch.cat(maps, dim=3) @ values
    if lam_init is not None:
        out = out * torch.rsqrt(out.square().mean(dim=-1, keepdim=True) + eps) * (1 - lam_init)
    return out.to(q1.dtype)
