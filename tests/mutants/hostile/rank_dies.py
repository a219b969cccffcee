"""Sequence-parallel attention by broadcast: and one of three processes leaves."""

import os

import torch
import torch.distributed as dist


def kernel(q, k, v, *, causal=False, scale=None, process_group=None, rank=0, world_size=1):
    if world_size == 3 and rank == 2 and causal:
        os._exit(7)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    lengths = torch.zeros(world_size, dtype=torch.long)
    lengths[rank] = q.shape[2]
    dist.all_reduce(lengths, group=process_group)
    starts = torch.cumsum(lengths, 0) - lengths
    repeat = q.shape[1] // k.shape[1]
    scores, shown = [], []
    own = starts[rank] + torch.arange(q.shape[2])
    for source in range(world_size):
        size = int(lengths[source])
        keys = k.contiguous().clone() if source == rank else k.new_empty(*k.shape[:2], size, k.shape[3])
        values = v.contiguous().clone() if source == rank else v.new_empty(*v.shape[:2], size, v.shape[3])
        if size and k.shape[0]:
            dist.broadcast(keys, source, group=process_group)
        if size and v.numel() + values.numel():
            dist.broadcast(values, source, group=process_group)
        part = (q.float() * scale) @ keys.float().repeat_interleave(repeat, 1).transpose(2, 3)
        if causal:
            part = part.masked_fill(starts[source] + torch.arange(size) > own[:, None], -torch.inf)
        scores.append(part)
        shown.append(values.float().repeat_interleave(repeat, 1))
    weights = torch.softmax(torch.cat(scores, -1), -1)
    return (weights @ torch.cat(shown, 2)).to(q.dtype)
