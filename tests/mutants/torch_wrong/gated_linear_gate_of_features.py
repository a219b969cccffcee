import torch


def kernel(q, k, v, *, eps=1e-6):
    q, k = torch.relu(q) + 1, torch.relu(k) + 1
    k = k * torch.sigmoid(k.sum(-1, keepdim=True))
    return q @ (k.mT @ v) / (q @ k.sum(2).unsqueeze(-1) + eps)
