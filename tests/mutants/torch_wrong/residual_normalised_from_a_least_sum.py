"""What is left of the target, normalised by F.normalize with a least sum, which a draft model close to the target falls below."""

import torch


def kernel(p, q):
    left = torch.relu(p - q)
    normalised = torch.nn.functional.normalize(left, p=1, dim=-1, eps=1e-5)
    return torch.where(left.sum(dim=-1, keepdim=True) == 0, p, normalised)
