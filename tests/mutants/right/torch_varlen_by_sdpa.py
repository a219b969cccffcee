import torch
import torch.nn.functional as F


def kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, *, causal=False, scale=None):
    out = torch.zeros(len(q), q.shape[1], v.shape[2], dtype=q.dtype)
    group = q.shape[1] // k.shape[1]
    for a, b, c, d in zip(*(x.tolist() for x in (cu_seqlens_q[:-1], cu_seqlens_q[1:], cu_seqlens_k[:-1], cu_seqlens_k[1:]))):
        if a == b or c == d:
            continue
        rows = F.pad(q[a:b].transpose(0, 1), (0, 0, 0, 1))[None]
        ks, vs = (x[c:d].transpose(0, 1).repeat_interleave(group, 0)[None] for x in (k, v))
        place = torch.arange(b - a + 1)[:, None] + (d - c) - (b - a)
        mask = torch.arange(d - c) <= place if causal else torch.ones(b - a + 1, d - c, dtype=torch.bool)
        blind = ~mask.any(-1)
        o = F.scaled_dot_product_attention(rows, ks, vs, attn_mask=mask | blind[:, None], scale=scale)[0]
        out[a:b] = o.masked_fill(blind[:, None], 0.0)[:, : b - a].transpose(0, 1)
    return out
