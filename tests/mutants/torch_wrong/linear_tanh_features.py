import torch


def kernel(q, k, v, *, causal=False, eps=1e-6):
    q, k = torch.tanh(q), torch.tanh(k)
    w = q @ k.mT
    if causal:
        w = torch.tril(w)
    return w @ v / (w.sum(-1, keepdim=True) + eps)
