import torch
import torch.nn.functional as F


def kernel(hidden, indices, weights, w_in, w_out, *, shared_in=None, shared_out=None, capacity=None):
    x, w = hidden.float(), weights.float()
    out = torch.zeros_like(x)
    for e in range(len(w_in)):
        t, j = (indices == e).nonzero(as_tuple=True)
        t, j = t[:capacity], j[:capacity]
        out[t] += w[t, j, None] * (F.silu(x[t] @ w_in[e].float()) @ w_out[e].float())
    if shared_in is not None:
        out = out + F.silu(x @ shared_in.float()) @ shared_out.float()
    return out.to(hidden.dtype)
