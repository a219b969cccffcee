import torch


CHUNK = 32


def logs(x, w):
    x = x * x.shape[-1] ** -0.25
    return x @ w.mT - x.square().sum(-1, keepdim=True) / 2


def kernel(q, k, v, projection, *, eps=1e-6):
    a = logs(q, projection)
    fq = torch.exp(a - a.amax(-1, keepdim=True)) / len(projection) ** 0.5
    num = den = 0.0
    for kc, vc in zip(k.split(CHUNK, dim=2), v.split(CHUNK, dim=2)):
        b = logs(kc, projection)
        fk = torch.exp(b - b.amax((-1, -2), keepdim=True)) / len(projection) ** 0.5 if kc.shape[2] else b
        num = num + fk.mT @ vc
        den = den + fk.sum(2)[..., None]
    return fq @ num / (fq @ den + eps)
