import torch


def kernel(loads):
    x = loads.float()
    if not bool((x > 0).any()):
        return x.new_zeros(())
    std = x.std() if len(x) > 1 else x.new_zeros(())
    return std / x.mean()
