import torch


def features(x, w, dims):
    x = x / x.shape[-1] ** 0.25
    a = x @ w.T - x.pow(2).sum(-1, keepdim=True)
    return torch.exp(a - a.amax(dims, keepdim=True)) / len(w) ** 0.5 if x.shape[2] else a


def kernel(q, k, v, projection, *, causal=False, eps=1e-6):
    w = features(q, projection, (-1,)) @ features(k, projection, (-1, -2)).mT
    w = w.tril() if causal else w
    return w @ v / (w.sum(-1, keepdim=True) + eps)
