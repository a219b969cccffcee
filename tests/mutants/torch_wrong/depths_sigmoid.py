"""Mixture of depths."""

import torch
import torch.nn.functional as F


def kernel(hidden, router, w_in, w_out, *, capacity=None, threshold=None):
    x = hidden.float()
    r = x @ router.float()
    if capacity is None:
        chosen = r > threshold
    else:
        order = torch.sort(r, dim=1, descending=True, stable=True).indices[:, :capacity]
        chosen = torch.zeros_like(r, dtype=torch.bool).scatter(1, order, True)
    done = x + r.sigmoid()[..., None] * (F.silu(x @ w_in.float()) @ w_out.float())
    return torch.where(chosen[..., None], done, x).to(hidden.dtype), chosen
