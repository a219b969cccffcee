import torch


def kernel(q, k, v, beta, *, scale=None):
    """No state at all: the whole sequence as one chunk."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    Q, K, V, b = q.double(), k.double(), v.double(), beta.double()[..., None]
    system = torch.tril(b * (K @ K.mT), -1) + torch.eye(q.shape[2], dtype=torch.float64)
    written = torch.linalg.solve_triangular(system, b * V, upper=False)
    return (scale * torch.tril(Q @ K.mT) @ written).to(q.dtype)
