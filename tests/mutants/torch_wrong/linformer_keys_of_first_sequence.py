import torch


def kernel(q, k, v, e, f, *, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    keys = torch.einsum("ps,hsd->hpd", e, k[0]) if k.shape[0] else k.new_zeros(k.shape[1], e.shape[0], k.shape[3])
    values = torch.einsum("ps,bhsd->bhpd", f, v)
    return torch.softmax(torch.einsum("bhld,hpd->bhlp", q, keys) * scale, dim=-1) @ values
