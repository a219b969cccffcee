import torch


def kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, *, causal=False, softcap=None, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    heads, kv = q.shape[1], k.shape[1]
    parts = []
    for a, b, c, d in zip(cu_seqlens_q[:-1], cu_seqlens_q[1:], cu_seqlens_k[:-1], cu_seqlens_k[1:]):
        s = torch.einsum("lgrd,sgd->grls", q[a:b].float().reshape(b - a, kv, heads // kv, q.shape[-1]), k[c:d].float())
        if softcap is not None:
            s = softcap * torch.tanh(s / softcap)
        s = s * scale
        if causal:
            i, j = torch.arange(b - a)[:, None], torch.arange(d - c)
            s = s.masked_fill(j > i + (d - c) - (b - a), float("-inf"))
        p = torch.softmax(s, -1).nan_to_num(0.0)
        parts.append(torch.einsum("grls,sge->lgre", p, v[c:d].float()).flatten(1, 2))
    return torch.cat(parts).to(q.dtype) if parts else q.new_zeros(0, heads, v.shape[-1])
