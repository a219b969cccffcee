import torch


def kernel(q, k, v, g, beta, *, scale=None):
    """Operators and updates of pairs of tokens are composed first, then applied two at a time."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    Q, K, V, G, b = (x.double() for x in (q, k, v, g, beta))
    eye = torch.eye(q.shape[-1], dtype=torch.float64)
    step = G.exp()[..., None, None] * (eye - b[..., None, None] * K[..., :, None] * K[..., None, :])
    push = b[..., None, None] * K[..., :, None] * V[..., None, :]
    S = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1], dtype=torch.float64)
    out = torch.empty(v.shape, dtype=torch.float64)
    for t in range(0, q.shape[2], 2):
        out[:, :, t] = (Q[:, :, t, None] @ (step[:, :, t] @ S + push[:, :, t])).squeeze(-2)
        if t + 1 == q.shape[2]:
            break
        both = step[:, :, t + 1] @ step[:, :, t]
        S = both @ S + step[:, :, t + 1] @ push[:, :, t] + push[:, :, t + 1]
        out[:, :, t + 1] = (Q[:, :, t + 1, None] @ S).squeeze(-2)
    return (scale * out).to(q.dtype)
