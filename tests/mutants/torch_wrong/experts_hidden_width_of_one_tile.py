import torch
import torch.nn.functional as F

TILE = 64


def kernel(hidden, indices, weights, w_in, w_out, *, activation="silu"):
    activate = F.silu if activation == "silu" else torch.relu
    width = w_in.shape[2]
    whole = width // TILE * TILE if width > TILE else width
    out = torch.zeros(hidden.shape[0], hidden.shape[1])
    for expert in range(w_in.shape[0]):
        tokens, choices = torch.nonzero(indices == expert, as_tuple=True)
        x = hidden[tokens].float()
        made = torch.zeros(len(tokens), hidden.shape[1])
        for start in range(0, whole, TILE):
            columns = slice(start, min(start + TILE, whole))
            made += activate(x @ w_in[expert, :, columns].float()) @ w_out[expert, columns].float()
        out.index_add_(0, tokens, weights[tokens, choices, None].float() * made)
    return out.to(hidden.dtype)
