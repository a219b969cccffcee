import torch


def kernel(q, k, v, g, beta, *, scale=None, initial_state=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, g, beta = (x.float() for x in (q, k, v, g, beta))
    S = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]) if initial_state is None else initial_state.float().clone()
    out = torch.empty_like(v)
    for t in range(q.shape[2]):
        old = torch.einsum("bhd,bhde->bhe", k[:, :, t], S)
        S = S + torch.einsum("bhd,bhe->bhde", k[:, :, t], beta[:, :, t, None] * (v[:, :, t] - old))
        S = S * g[:, :, t, None, None].exp()
        out[:, :, t] = torch.einsum("bhd,bhde->bhe", q[:, :, t], S) * scale
    return out, S
