import torch


def kernel(q, k_cache, v_cache, block_tables, context_lens, *, scale=None, num_splits=4):
    batch, n_heads, head_dim = q.shape
    block_size, n_kv = k_cache.shape[1:3]
    scale = head_dim**-0.5 if scale is None else scale
    qg = q.float().reshape(batch, n_kv, n_heads // n_kv, head_dim) * scale
    longest = int(context_lens.max()) if batch else 0
    share = -(-longest // num_splits)
    outs, lses = [], []
    for i in range(num_splits):
        pos = torch.arange(i * share, min((i + 1) * share, longest))
        if len(pos) == 0:
            continue
        ok = pos < context_lens[:, None]
        blocks = block_tables[:, pos // block_size].clamp(min=0)
        k = torch.where(ok[..., None, None], k_cache[blocks, pos % block_size].float(), 0.0)
        v = torch.where(ok[..., None, None], v_cache[blocks, pos % block_size].float(), 0.0)
        s = torch.einsum("bgrd,bngd->bgrn", qg, k).masked_fill(~ok[:, None, None], float("-inf"))
        lse = torch.logsumexp(s, -1)
        outs.append(torch.einsum("bgrn,bnge->bgre", torch.exp(s - lse[..., None]), v))
        lses.append(lse)
    if not outs:
        return q.new_zeros(batch, n_heads, v_cache.shape[3])
    w = torch.softmax(torch.stack(lses), 0)
    out = (w[..., None] * torch.stack(outs)).sum(0)
    out[context_lens == 0] = 0.0
    return out.reshape(batch, n_heads, -1).to(q.dtype)
