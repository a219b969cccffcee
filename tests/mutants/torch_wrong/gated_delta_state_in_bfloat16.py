import torch


def kernel(q, k, v, g, beta, *, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, g, beta = (x.float() for x in (q, k, v, g, beta))
    cache = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1], dtype=torch.bfloat16)
    out = torch.empty_like(v)
    for t in range(q.shape[2]):
        S = cache.float() * g[:, :, t, None, None].exp()
        old = (k[:, :, t, None] @ S).squeeze(-2)
        S = S + k[:, :, t, :, None] * (beta[:, :, t, None] * (v[:, :, t] - old))[:, :, None]
        out[:, :, t] = (q[:, :, t, None] @ S).squeeze(-2) * scale
        cache = S.bfloat16()
    return out
