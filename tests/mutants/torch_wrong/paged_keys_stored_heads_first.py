import torch


def kernel(q, k_cache, v_cache, block_tables, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    n_blocks, block_size, n_kv, _ = k_cache.shape
    scale = head_dim**-0.5 if scale is None else scale
    k_cache = k_cache.reshape(n_blocks, n_kv, block_size, head_dim).transpose(1, 2)
    out = q.new_zeros(batch, n_heads, v_cache.shape[3])
    for b in range(batch):
        n = int(context_lens[b])
        if n:
            t = torch.arange(n)
            k, v = (c[block_tables[b, t // block_size], t % block_size].float() for c in (k_cache, v_cache))
            s = torch.einsum("grd,ngd->grn", q[b].float().reshape(n_kv, -1, head_dim) * scale, k)
            out[b] = torch.einsum("grn,nge->gre", s.softmax(-1), v).reshape(n_heads, -1).to(q.dtype)
    return out
