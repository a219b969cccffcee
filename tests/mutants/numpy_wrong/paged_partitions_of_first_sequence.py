import numpy as np

PARTITION = 32


def _part(q, k, v):
    s = np.einsum("hd,nhd->hn", q, k)
    m = s.max(axis=-1)
    p = np.exp(s - m[:, None])
    return m, p.sum(axis=-1), np.einsum("hn,nhe->he", p, v)


def kernel(q, k_cache, v_cache, block_table, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    block_size, group = k_cache.shape[1], n_heads // k_cache.shape[2]
    scale = head_dim**-0.5 if scale is None else scale
    out = np.zeros((batch, n_heads, v_cache.shape[3]), np.float32)
    partitions = max(-(-int(context_lens[0]) // PARTITION), 1) if batch else 0
    for b in range(batch):
        stats = []
        for i in range(partitions):
            pos = np.arange(i * PARTITION, min((i + 1) * PARTITION, context_lens[b]))
            if len(pos):
                rows = block_table[b, pos // block_size], pos % block_size
                k, v = (np.repeat(c[rows].astype(np.float32), group, axis=1) for c in (k_cache, v_cache))
                stats.append(_part(q[b].astype(np.float32) * scale, k, v))
        if stats:
            m, l, acc = (np.stack(x) for x in zip(*stats))
            w = np.exp(m - m.max(axis=0))
            out[b] = (w[..., None] * acc).sum(axis=0) / (w * l).sum(axis=0)[:, None]
    return out.astype(q.dtype)
