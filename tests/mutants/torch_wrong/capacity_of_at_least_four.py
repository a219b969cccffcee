import torch


def kernel(*, tokens, experts, k=1, capacity_factor=1.0, min_capacity=4):
    capacity = torch.ceil(torch.tensor(tokens * k / experts * capacity_factor, dtype=torch.float64)).long()
    return torch.maximum(capacity, torch.tensor(max(min_capacity, 4)))
