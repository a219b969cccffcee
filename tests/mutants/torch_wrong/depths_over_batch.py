"""Mixture of depths."""

import torch
import torch.nn.functional as F


def kernel(hidden, router, w_in, w_out, *, capacity=None, threshold=None):
    x = hidden.float()
    r = x @ router.float()
    if capacity is None:
        chosen = r > threshold
    else:
        order = torch.sort(r.flatten(), descending=True, stable=True).indices[: capacity * len(r)]
        chosen = torch.zeros(r.numel(), dtype=torch.bool).scatter(0, order, True).reshape(r.shape)
    done = x + r[..., None] * (F.silu(x @ w_in.float()) @ w_out.float())
    return torch.where(chosen[..., None], done, x).to(hidden.dtype), chosen
