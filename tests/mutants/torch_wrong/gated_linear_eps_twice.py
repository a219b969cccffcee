import torch


def kernel(q, k, v, *, feature_map="relu+1", eps=1e-6):
    phi = {
        "relu+1": lambda x: torch.relu(x) + 1,
        "relu": torch.relu,
        "exp": torch.exp,
        "elu+1": lambda x: torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0))),
    }[feature_map]
    gate = torch.sigmoid(k.sum(-1, keepdim=True))
    keys = phi(k) * gate
    z = keys.sum(dim=2, keepdim=True).mT + eps
    return phi(q) @ (keys.mT @ v) / (phi(q) @ z + eps)
