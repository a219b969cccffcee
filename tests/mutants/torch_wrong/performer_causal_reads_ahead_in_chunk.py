import torch


CHUNK = 16


def features(x, w, dims):
    x = x / x.shape[-1] ** 0.25
    a = x @ w.T - x.pow(2).sum(-1, keepdim=True) / 2
    return torch.exp(a - a.amax(dims, keepdim=True)) / len(w) ** 0.5 if x.shape[2] else a


def kernel(q, k, v, projection, *, causal=False, eps=1e-6):
    fq, fk = features(q, projection, (-1,)), features(k, projection, (-1, -2))
    v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    if not causal:
        sums = fq @ (fk.mT @ v)
    else:
        state = torch.zeros_like(fk[:, :, :1].mT @ v[:, :, :1])
        sums = torch.zeros_like(v)
        for start in range(0, q.shape[2], CHUNK):
            rows = slice(start, start + CHUNK)
            state = state + fk[:, :, rows].mT @ v[:, :, rows]
            sums[:, :, rows] = fq[:, :, rows] @ state
    return sums[..., :-1] / (sums[..., -1:] + eps)
