import torch


def kernel(q, k, v, e, f, *, scale=None):
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    rows = q.to(wide) * scale
    top = rows.new_full((*q.shape[:3], 1), float("-inf"))
    total, out = torch.zeros_like(top), rows.new_zeros(*q.shape[:3], v.shape[3])
    for p in range(e.shape[0]):
        key = torch.einsum("s,bhsd->bhd", e[p].to(wide), k.to(wide))
        value = torch.einsum("s,bhsd->bhd", f[p].to(wide), v.to(wide))
        logit = (rows * key.unsqueeze(2)).sum(-1, keepdim=True)
        new = torch.maximum(top, logit)
        weight, kept = torch.exp(logit - new), torch.exp(top - new)
        total, out, top = total * kept + weight, out * kept + weight * value.unsqueeze(2), new
    return (out / total).to(q.dtype)
