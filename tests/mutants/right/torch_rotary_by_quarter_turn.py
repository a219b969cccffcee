import math

import torch


def kernel(x, positions, *, base=10000.0, interleaved=False):
    dim = x.shape[-1]
    freq = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(base) / dim))
    angle = positions[:, None, :, None].float() * freq
    cos, sin = angle.cos().to(x.dtype).float(), angle.sin().to(x.dtype).float()
    pairs = x.float().unflatten(-1, (dim // 2, 2)) if interleaved else x.float().unflatten(-1, (2, dim // 2)).transpose(-1, -2)
    turned = torch.stack([pairs[..., 0] * cos - pairs[..., 1] * sin, pairs[..., 0] * sin + pairs[..., 1] * cos], -1)
    return (turned if interleaved else turned.transpose(-1, -2)).flatten(-2).to(x.dtype)
