import torch


CHUNK = 64


def phi(x):
    return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))


def kernel(q, k, v, *, causal=False, eps=1e-6):
    q, k = phi(q), phi(k)
    v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    if causal:
        state, rows = 0.0, []
        for start in range(0, q.shape[2], CHUNK):
            end = start + CHUNK
            qc, kc, vc = q[:, :, start:end], k[:, :, start:end], v[:, :, start:end]
            inner = (qc @ kc.mT).tril() @ vc
            rows.append(inner + (qc @ state if start else 0))
            state = state + kc[:, :, : CHUNK - 1].mT @ vc[:, :, : CHUNK - 1]
        sums = torch.cat(rows, dim=2) if rows else v
    else:
        sums = q @ (k.mT @ v)
    return sums[..., :-1] / (sums[..., -1:] + eps)
