import torch


def kernel(q, k, v, g, beta, *, scale=None, initial_state=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    batch, heads, length, width = q.shape
    states = [q.new_zeros(batch, heads, width, v.shape[3]) if initial_state is None else initial_state.clone()]
    out = torch.empty_like(v)
    for start in range(0, length, 64):
        queries, keys, values, gates, betas = (x[:, :, start : start + 64].float() for x in (q, k, v, g, beta))
        size, total, state = queries.shape[2], gates.cumsum(2), states[-1].float()
        later = torch.ones(size, size, dtype=torch.bool).triu(1)
        decay = torch.exp((total[..., :, None] - total[..., None, :]).masked_fill(later, -torch.inf))
        triangle = torch.tril(keys @ keys.mT * decay * betas[..., None], -1) + torch.eye(size)
        missing = betas[..., None] * (values - torch.exp(total)[..., None] * (keys @ state))
        written = torch.linalg.solve_triangular(triangle, missing, upper=False)
        read = (queries @ keys.mT * decay) @ written + torch.exp(total)[..., None] * (queries @ state)
        out[:, :, start : start + 64] = (scale * read).to(out.dtype)
        left = torch.exp(total[..., -1:] - total)[..., None] * written
        states.append((torch.exp(total[..., -1])[..., None, None] * state + keys.mT @ left).to(q.dtype))
    return out, states[-1]
