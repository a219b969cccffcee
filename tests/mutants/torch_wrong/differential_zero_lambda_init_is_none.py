import torch


def attend(q, k, v, scale, causal):
    group = q.shape[1] // k.shape[1]
    k, v = (x.float().repeat_interleave(group, dim=1) for x in (k, v))
    logits = q.float() @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        queries, keys = logits.shape[-2:]
        later = torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries
        logits = logits.masked_fill(later, -torch.inf)
    return torch.softmax(logits, dim=-1).nan_to_num(0.0) @ v


def kernel(q1, k1, q2, k2, v, *, lam, v2=None, causal=False, scale=None, lam_init=None, eps=1e-5):
    second = v if v2 is None else v2
    out = attend(q1, k1, v, scale, causal) - lam * attend(q2, k2, second, scale, causal)
    if lam_init:
        out = out * torch.rsqrt(out.square().mean(dim=-1, keepdim=True) + eps) * (1 - lam_init)
    return out.to(q1.dtype)
