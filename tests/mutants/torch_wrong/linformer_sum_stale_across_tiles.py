import torch

TILE = 64


def kernel(q, k, v, e, f, *, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    keys, values = e.float() @ k.float(), f.float() @ v.float()
    maximum = torch.full((*q.shape[:3], 1), -torch.inf)
    total, out = torch.zeros_like(maximum), torch.zeros(*q.shape[:3], v.shape[-1])
    for start in range(0, keys.shape[2], TILE):
        logits = q.float() @ keys[:, :, start : start + TILE].mT * scale
        larger = torch.maximum(maximum, logits.amax(dim=-1, keepdim=True))
        weights = torch.exp(logits - larger)
        out = out * torch.exp(maximum - larger) + weights @ values[:, :, start : start + TILE]
        total = total + weights.sum(dim=-1, keepdim=True)
        maximum = larger
    return (out / total).to(q.dtype)
