import torch
import torch.nn.functional as F


def kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, *, causal=False, scale=None):
    outs = []
    group = q.shape[1] // k.shape[1]
    for a, b, c, d in zip(cu_seqlens_q[:-1], cu_seqlens_q[1:], cu_seqlens_k[:-1], cu_seqlens_k[1:]):
        if a == b:
            continue
        if c == d:
            outs.append(q.new_zeros(b - a, q.shape[1], v.shape[2]))
            continue
        qs, ks, vs = (x.transpose(0, 1)[None] for x in (q[a:b], k[c:d].repeat_interleave(group, 1), v[c:d].repeat_interleave(group, 1)))
        outs.append(F.scaled_dot_product_attention(qs, ks, vs, is_causal=causal, scale=scale)[0].transpose(0, 1))
    return torch.cat(outs) if outs else q.new_zeros(0, q.shape[1], v.shape[2])
