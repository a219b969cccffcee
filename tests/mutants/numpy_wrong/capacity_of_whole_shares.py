import numpy as np


def kernel(*, tokens, experts, k=1, capacity_factor=1.0, min_capacity=0):
    return max(int(np.ceil(tokens * k // experts * capacity_factor)), min_capacity)
