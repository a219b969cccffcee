import numpy as np

SEQUENCES = 8


def kernel(query, key_cache, value_cache, block_tables, seq_lens, *, scale=None, softcap=None):
    block_size, kv_heads = key_cache.shape[1:3]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    wide = np.float64 if query.dtype == np.float64 else np.float32
    out = np.zeros((*query.shape[:2], value_cache.shape[-1]), query.dtype)
    for program in range(max(len(query) // SEQUENCES, 1)):
        for b in range(program * SEQUENCES, min((program + 1) * SEQUENCES, len(query))):
            n = seq_lens[b]
            if n == 0:
                continue
            blocks = block_tables[b, : -(-n // block_size)]
            k, v = (x[blocks].reshape(-1, kv_heads, x.shape[-1])[:n].astype(wide) for x in (key_cache, value_cache))
            k, v = (np.repeat(x, query.shape[1] // kv_heads, axis=1) for x in (k, v))
            s = np.einsum("hd,phd->hp", query[b].astype(wide), k) * wide(scale)
            if softcap is not None:
                s = wide(softcap) * np.tanh(s / wide(softcap))
            p = np.exp(s - s.max(axis=-1, keepdims=True))
            out[b] = np.einsum("hp,phe->he", p / p.sum(axis=-1, keepdims=True), v)
    return out
