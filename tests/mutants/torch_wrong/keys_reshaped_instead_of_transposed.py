"""Plain attention in four lines."""

import torch


def kernel(q, k, v, *, scale=None):
    group = q.shape[1] // k.shape[1]
    keys, values = (x.repeat_interleave(group, dim=1).float() for x in (k, v))
    keys = keys.reshape(*keys.shape[:2], keys.shape[3], keys.shape[2])
    scores = q.float() @ keys * (q.shape[3] ** -0.5 if scale is None else scale)
    return (torch.softmax(scores, dim=-1) @ values).to(q.dtype)
