import torch


def kernel(q, k, v, e, f, *, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    keys = e @ k
    values = f @ v if f.shape[0] != v.shape[2] else f.mT @ v
    return torch.softmax(q @ keys.mT * scale, dim=-1) @ values
