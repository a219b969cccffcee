import torch


def features(x, w, dims):
    x = x / x.shape[-1] ** 0.25
    a = x @ w.T - x.pow(2).sum(-1, keepdim=True) / 2
    return torch.exp(a - a.amax(dims, keepdim=True)) / len(w) ** 0.5 if x.shape[2] else a


def kernel(q, k, v, projection, *, eps=1e-6):
    fq, fk = features(q, projection, (-2,)), features(k, projection, (-1, -2))
    return fq @ (fk.mT @ v) / (fq @ fk.sum(2).unsqueeze(-1) + eps)
