import torch
import torch.nn.functional as F

TILE = 64


def kernel(hidden, indices, weights, w_in, w_out, *, capacity=None, activation="silu"):
    activate = F.silu if activation == "silu" else torch.relu
    tokens, choices = indices.shape
    out = torch.zeros(tokens, hidden.shape[1])
    flat = indices.reshape(-1)
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=w_in.shape[0])
    ends = torch.cumsum(counts, 0)
    for expert, (count, end) in enumerate(zip(counts.tolist(), ends.tolist())):
        rows = order[end - count : end]
        rows = rows if capacity is None else rows[:capacity]
        tiles = (len(rows) + TILE - 2) // TILE if len(rows) > 1 else len(rows)
        rows = rows[: tiles * TILE]
        source = rows // max(choices, 1)
        made = activate(hidden[source].float() @ w_in[expert].float()) @ w_out[expert].float()
        out.index_add_(0, source, weights.reshape(-1)[rows, None].float() * made)
    return out.to(hidden.dtype)
