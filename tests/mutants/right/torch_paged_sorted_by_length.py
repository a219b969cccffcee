import torch


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None):
    batch, heads, dim = q.shape
    block_size, kv = k_cache.shape[1:3]
    scale = dim**-0.5 if scale is None else scale
    out = torch.zeros(batch, heads, v_cache.shape[3], dtype=q.dtype)
    for n in torch.unique(context_lens).tolist():
        rows = torch.nonzero(context_lens == n)[:, 0]
        if n == 0:
            continue
        t = torch.arange(n)
        k, v = (c[block_table[rows][:, t // block_size], t % block_size].float() for c in (k_cache, v_cache))
        s = torch.einsum("bgrd,bngd->bgrn", q[rows].float().reshape(len(rows), kv, heads // kv, dim), k) * scale
        out[rows] = torch.einsum("bgrn,bnge->bgre", s.softmax(-1), v).flatten(1, 2).to(q.dtype)
    return out
