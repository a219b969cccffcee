import torch


def kernel(x, positions, *, base=10000.0, interleaved=False):
    length, dim = x.shape[2:]
    start = positions[:, :1] if length else positions
    pos = (start + torch.arange(length)).float()
    angle = pos[:, None, :, None] * (1.0 / base ** (torch.arange(0, dim, 2).float() / dim))
    cos, sin = angle.cos(), angle.sin()
    x32 = x.float()
    if interleaved:
        x1, x2 = x32[..., 0::2], x32[..., 1::2]
        return torch.stack([x1 * cos - x2 * sin, x1 * sin + x2 * cos], -1).flatten(-2).to(x.dtype)
    x1, x2 = x32.chunk(2, -1)
    return torch.cat([x1 * cos - x2 * sin, x1 * sin + x2 * cos], -1).to(x.dtype)
