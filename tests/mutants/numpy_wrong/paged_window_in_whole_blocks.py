import numpy as np


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None, window=None):
    batch, n_heads, head_dim = q.shape
    block_size, n_kv = k_cache.shape[1:3]
    scale = head_dim**-0.5 if scale is None else scale
    left = None if window is None else window[0]
    out = np.zeros((batch, n_heads, v_cache.shape[3]), np.float32)
    for b, ctx in enumerate(context_lens.tolist()):
        if ctx == 0:
            continue
        n_blocks = -(-ctx // block_size)
        # blocks before the window are skipped
        first = 0 if left is None else max(n_blocks - (left // block_size + 1), 0)
        pos = np.arange(first * block_size, ctx)
        if left is not None:
            pos = pos[pos >= ctx - 1 - left]
        rows = block_table[b, pos // block_size], pos % block_size
        k, v = (np.repeat(c[rows], n_heads // n_kv, axis=1).astype(np.float32) for c in (k_cache, v_cache))
        s = np.einsum("hd,nhd->hn", q[b].astype(np.float32) * scale, k)
        p = np.exp(s - s.max(axis=-1, keepdims=True))
        out[b] = np.einsum("hn,nhe->he", p, v) / p.sum(axis=-1, keepdims=True)
    return out.astype(q.dtype)
