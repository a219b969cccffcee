import torch


def kernel(q, k, v, *, eps=1e-6):
    gate = torch.sigmoid(k.sum(-1, keepdim=True))
    fq, fk = torch.relu(q) + 1, (torch.relu(k) + 1) * gate
    num = fq @ (fk.mT @ (gate * v))
    den = fq @ (fk * gate).sum(2)[..., None]
    return num / (den + eps)
