import torch


def kernel(q, k_cache, v_cache, block_tables, seq_lens, *, scale=None, window=None):
    outs = []
    n_heads, n_kv, block_size = q.shape[1], k_cache.shape[2], k_cache.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    for query, table, n in zip(q, block_tables, seq_lens.tolist()):
        start = 0 if window is None or window[0] is None else max(n - window[0], 0)
        t = torch.arange(start, n)
        k, v = (c[table[t // block_size], t % block_size].float() for c in (k_cache, v_cache))
        s = torch.einsum("grd,ngd->grn", query.float().view(n_kv, n_heads // n_kv, -1) * scale, k)
        p = torch.softmax(s, -1)
        outs.append(torch.einsum("grn,nge->gre", p, v).reshape(n_heads, v_cache.shape[3]))
    return torch.stack(outs).to(q.dtype) if outs else q.new_zeros(0, n_heads, v_cache.shape[3])
