import numpy as np


def kernel(query, key_cache, value_cache, block_tables, seq_lens, *, scale=None, block_k=32):
    """Decode over a paged cache. The tables are made as small as the number of blocks allows."""
    tables = block_tables.astype(np.min_scalar_type(-len(key_cache)))
    block_size, kv_heads = key_cache.shape[1:3]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    wide = np.float64 if query.dtype == np.float64 else np.float32
    out = np.zeros((*query.shape[:2], value_cache.shape[-1]), wide)
    for b, length in enumerate(seq_lens):
        top = np.full(query.shape[1], -np.inf, wide)
        total = np.zeros(query.shape[1], wide)
        for start in range(0, length, block_k):
            place = np.arange(start, min(start + block_k, length))
            block = tables[b, place // block_size]
            k = np.repeat(key_cache[block, place % block_size].astype(wide), query.shape[1] // kv_heads, axis=1)
            v = np.repeat(value_cache[block, place % block_size].astype(wide), query.shape[1] // kv_heads, axis=1)
            s = np.einsum("hd,phd->hp", query[b].astype(wide), k) * wide(scale)
            new = np.maximum(top, s.max(axis=-1))
            shrink, p = np.exp(top - new), np.exp(s - new[:, None])
            out[b] = out[b] * shrink[:, None] + np.einsum("hp,phe->he", p, v)
            total, top = total * shrink + p.sum(axis=-1), new
        if length:
            out[b] /= total[:, None]
    return out.astype(query.dtype)
