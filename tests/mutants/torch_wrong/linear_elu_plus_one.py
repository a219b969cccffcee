import torch


def kernel(q, k, v, *, causal=False, eps=1e-6):
    q = torch.nn.functional.elu(q) + 1
    k = torch.nn.functional.elu(k) + 1
    if causal:
        kv = torch.cumsum(torch.einsum("bhld,bhle->bhlde", k, v), dim=2)
        z = torch.cumsum(k, dim=2)
        num = torch.einsum("bhld,bhlde->bhle", q, kv)
        den = (q * z).sum(-1, keepdim=True)
    else:
        num = q @ (k.transpose(-1, -2) @ v)
        den = q @ k.sum(dim=2).unsqueeze(-1)
    return num / (den + eps)
