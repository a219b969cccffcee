"""Ring attention: keys and values travel, partial outputs are merged by their logsumexps."""

import torch
import torch.distributed as dist


def positions(total, rank, world, zigzag):
    parts = 2 * world if zigzag else world
    edges = [total * part // parts for part in range(parts + 1)]
    chunk = [torch.arange(edges[part], edges[part + 1]) for part in range(parts)]
    return torch.cat([chunk[rank], chunk[parts - 1 - rank]]) if zigzag else chunk[rank]


def block(q, k, v, visible, scale):
    if k.shape[2] == 0:
        return q.new_zeros(*q.shape[:3], v.shape[3]), q.new_full((*q.shape[:3], 1), -torch.inf)
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = (q @ k.transpose(2, 3) * scale).masked_fill(~visible, -torch.inf)
    lse = torch.logsumexp(scores, -1, keepdim=True)
    weights = torch.exp(scores - lse.masked_fill(lse.isneginf(), 0.0))
    return weights @ v, lse.masked_fill(lse.isneginf(), 0.0)


def kernel(q, k, v, *, causal=False, scale=None, zigzag=False, group=None):
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    lengths = [torch.zeros(1, dtype=torch.long) for _ in range(world)]
    dist.all_gather(lengths, torch.tensor([q.shape[2]]), group=group)
    lengths = [int(length) for length in lengths]
    total = sum(lengths)
    mine = positions(total, rank, world, zigzag)
    queries = q.float()
    out = queries.new_zeros(*q.shape[:3], v.shape[3])
    lse = queries.new_full((*q.shape[:3], 1), -torch.inf)
    keys, values = k.contiguous(), v.contiguous()
    for step in range(world):
        source = (rank - step) % world
        theirs = positions(total, source, world, zigzag)
        visible = (theirs[None, :] <= mine[:, None]) if causal else torch.ones(len(mine), len(theirs), dtype=torch.bool)
        part, part_lse = block(queries, keys.float(), values.float(), visible, scale)
        merged = torch.logaddexp(lse, part_lse)
        safe = merged.masked_fill(merged.isneginf(), 0.0)
        out = torch.exp(lse - safe) * out + torch.exp(part_lse - safe) * part
        lse = merged
        if step + 1 < world:
            arriving = lengths[(source - 1) % world]
            next_keys = keys.new_empty(*keys.shape[:2], arriving, keys.shape[3])
            next_values = values.new_empty(*values.shape[:2], arriving, values.shape[3])
            to, of = (rank + 1) % world, (rank - 1) % world
            work = [dist.isend(keys, to, tag=1), dist.isend(values, to, tag=2), dist.irecv(next_keys, of, tag=1), dist.irecv(next_values, of, tag=2)]
            for one in work:
                one.wait()
            keys, values = next_keys, next_values
    return out.to(q.dtype)
