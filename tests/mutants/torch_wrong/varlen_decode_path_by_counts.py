import torch


def attend(q, k, v, scale):
    s = torch.einsum("lgrd,sgd->grls", q, k) * scale
    return torch.einsum("grls,sge->lgre", torch.softmax(s, -1).nan_to_num(0.0), v).flatten(1, 2)


def kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, *, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    n, kv = len(cu_seqlens_q) - 1, k.shape[1]
    qf = q.float().reshape(len(q), kv, q.shape[1] // kv, q.shape[2])
    # decoding: one new token a sequence
    starts = torch.arange(n + 1) if len(q) == n else cu_seqlens_q
    outs = [
        attend(qf[a:b], k[c:d].float(), v[c:d].float(), scale)
        for a, b, c, d in zip(starts[:-1], starts[1:], cu_seqlens_k[:-1], cu_seqlens_k[1:])
    ]
    return torch.cat(outs).to(q.dtype) if outs else q.new_zeros(0, q.shape[1], v.shape[2])
