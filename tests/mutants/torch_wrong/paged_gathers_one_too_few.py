import torch


def kernel(q, k_cache, v_cache, block_tables, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    block_size, n_kv = k_cache.shape[1:3]
    scale = head_dim**-0.5 if scale is None else scale
    pos = torch.arange(max(int(context_lens.max()) - 1, 0)) if batch else torch.arange(0)
    ok = pos < context_lens[:, None]
    blocks = torch.where(ok, block_tables[:, pos // block_size], 0)
    k = torch.where(ok[..., None, None], k_cache[blocks, pos % block_size], 0).float().repeat_interleave(n_heads // n_kv, 2)
    v = torch.where(ok[..., None, None], v_cache[blocks, pos % block_size], 0).float().repeat_interleave(n_heads // n_kv, 2)
    s = torch.einsum("bhd,bnhd->bhn", q.float(), k) * scale
    p = torch.softmax(s.masked_fill(~ok[:, None], float("-inf")), -1).nan_to_num()
    return torch.einsum("bhn,bnhe->bhe", p, v).to(q.dtype)
