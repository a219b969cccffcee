import functools

import torch

_inv_freq = {}


def inv_freq(dim, base):
    if dim not in _inv_freq:
        _inv_freq[dim] = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float32) / max(dim, 1)))
    return _inv_freq[dim]


def kernel(x, positions, *, base=10000.0, rotary_width=None):
    rot = x.shape[-1] if rotary_width is None else rotary_width
    angle = positions[:, None, :, None].float() * inv_freq(rot, base)
    cos, sin = angle.cos(), angle.sin()
    x1, x2 = x[..., : rot // 2].float(), x[..., rot // 2 : rot].float()
    turned = torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1).to(x.dtype)
    return torch.cat([turned, x[..., rot:]], -1)
