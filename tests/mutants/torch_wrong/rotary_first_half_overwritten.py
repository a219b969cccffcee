import torch


def kernel(x, positions, *, base=10000.0):
    half = x.shape[-1] // 2
    y = x.float().clone()
    angle = positions[:, None, :, None].float() / base ** (torch.arange(half).float() / max(half, 1))
    cos, sin = angle.cos(), angle.sin()
    y[..., :half] = y[..., :half] * cos - y[..., half:] * sin
    y[..., half:] = y[..., :half] * sin + y[..., half:] * cos
    return y.to(x.dtype)
