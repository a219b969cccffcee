import torch


def kernel(q, k_cache, v_cache, block_tables, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    block_size, n_kv = k_cache.shape[1:3]
    scale = head_dim**-0.5 if scale is None else scale
    out = q.new_zeros(batch, n_heads, v_cache.shape[3])
    for b in range(batch):
        query = q[b].float().reshape(n_kv, n_heads // n_kv, head_dim) * scale
        m = torch.full(query.shape[:2], float("-inf"))
        l = torch.zeros_like(m)
        acc = q.new_zeros(*query.shape[:2], v_cache.shape[3])
        n = int(context_lens[b])
        for j in range(-(-n // block_size)):
            fill = min(block_size, n - j * block_size)
            k, v = (c[block_tables[b, j], :fill].float() for c in (k_cache, v_cache))
            s = torch.einsum("grd,ngd->grn", query, k)
            new = torch.maximum(m, s.amax(-1))
            p, alpha = torch.exp(s - new[..., None]), torch.exp(m - new)
            l, m = l * alpha + p.sum(-1), new
            acc = (acc * alpha[..., None] + torch.einsum("grn,nge->gre", p, v)).to(q.dtype)
        if n:
            out[b] = (acc.float() / l[..., None]).reshape(n_heads, -1).to(q.dtype)
    return out
