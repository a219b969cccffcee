import torch


import torch.nn.functional as F

BLOCK = 16


def phi(x):
    return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))


def kernel(q, k, v, *, eps=1e-6):
    pad = -k.shape[2] % BLOCK
    k, v = F.pad(k, (0, 0, 0, pad)), F.pad(v, (0, 0, 0, pad))
    fq, fk = phi(q), phi(k)
    return fq @ (fk.mT @ v) / (fq @ fk.sum(dim=2)[..., None] + eps)
