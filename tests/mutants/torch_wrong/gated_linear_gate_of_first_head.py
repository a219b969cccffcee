import torch


def kernel(q, k, v, *, eps=1e-6):
    gate = torch.sigmoid(k.sum(dim=-1))[:, :1, :, None]
    fq, fk = torch.relu(q) + 1, (torch.relu(k) + 1) * gate
    return fq @ (fk.mT @ v) / (fq @ fk.sum(dim=2, keepdim=True).mT + eps)
