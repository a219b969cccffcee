import torch


def kernel(logits, k, *, renormalize=True):
    x = logits.float()
    order = torch.sort(x, dim=-1, descending=True, stable=True)
    idx, top = order.indices[:, :k], order.values[:, :k]
    w = torch.softmax(top, -1) if renormalize else torch.exp(top - torch.logsumexp(x, -1, keepdim=True))
    return idx, w.to(logits.dtype)
