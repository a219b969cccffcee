import torch


def kernel(q, k, v, *, eps=1e-6):
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    gate = torch.sigmoid(k.to(wide).sum(dim=-1))
    weights = (torch.relu(q.to(wide)) + 1) @ (torch.relu(k.to(wide)) + 1).mT * gate.unsqueeze(2)
    share = weights / (weights.sum(dim=-1, keepdim=True) + eps)
    return (share.to(q.dtype).to(wide) @ v.to(wide)).to(q.dtype)
