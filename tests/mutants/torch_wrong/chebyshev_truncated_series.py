import torch
import math


def coefficients(degree, low, high):
    n = degree + 40
    angles = [math.pi * (2 * j + 1) / (2 * n) for j in range(n)]
    f = [math.exp((low + high) / 2 + (high - low) / 2 * math.cos(a)) for a in angles]
    c = [2 / n * sum(y * math.cos(i * a) for y, a in zip(f, angles)) for i in range(degree + 1)]
    return [c[0] / 2, *c[1:]]


def evaluate(c, t):
    before, latest = torch.ones_like(t), t
    total = torch.full_like(t, c[0])
    for one in c[1:]:
        total = total + one * latest
        before, latest = latest, 2 * t * latest - before
    return total


def kernel(q, k, v, *, degree, domain, scale=None):
    low, high = domain
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    x = (q @ k.mT * scale).clamp(low, high)
    w = evaluate(coefficients(degree, low, high), (2 * x - (low + high)) / (high - low))
    if k.shape[2] == 0:
        return v.new_zeros(*q.shape[:3], v.shape[3])
    return w @ v / w.sum(dim=-1, keepdim=True)
