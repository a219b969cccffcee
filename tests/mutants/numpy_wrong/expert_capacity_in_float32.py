"""Room of an expert, computed in single precision as the counts on the device are."""

import numpy as np


def kernel(*, tokens, experts, k=1, capacity_factor=1.0, min_capacity=0):
    share = np.float32(tokens) * np.float32(k) / np.float32(experts)
    return max(int(np.ceil(share * np.float32(capacity_factor))), min_capacity)
