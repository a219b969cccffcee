import torch


def kernel(p, q):
    d = (p.float() - q.float()).clamp_min(1e-10)
    return (d / d.sum(-1, keepdim=True)).to(p.dtype)
