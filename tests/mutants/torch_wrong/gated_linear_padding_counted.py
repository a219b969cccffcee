import torch


import torch.nn.functional as F


def kernel(q, k, v, *, eps=1e-6):
    n = k.shape[2]
    pad = -n % 8
    k, v = F.pad(k, (0, 0, 0, pad)), F.pad(v, (0, 0, 0, pad))
    keys = (F.relu(k) + 1) * torch.sigmoid(k.sum(-1, keepdim=True))
    fq = F.relu(q) + 1
    return fq @ (keys.mT @ v) / (fq @ keys.sum(2)[..., None] + eps)
