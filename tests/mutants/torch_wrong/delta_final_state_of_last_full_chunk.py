import torch

CHUNK = 16


def kernel(q, k, v, beta, *, scale=None, initial_state=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, beta = q.float() * scale, k.float(), v.float(), beta.float()[..., None]
    S = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]) if initial_state is None else initial_state.float().clone()
    out = torch.empty_like(v)
    final = S
    for a in range(0, q.shape[2], CHUNK):
        Q, K, V, b = (x[:, :, a : a + CHUNK] for x in (q, k, v, beta))
        A = torch.tril(b * (K @ K.mT), -1)
        U = torch.linalg.solve_triangular(A, b * (V - K @ S), upper=False, unitriangular=True)
        out[:, :, a : a + CHUNK] = Q @ S + torch.tril(Q @ K.mT) @ U
        S = S + K.mT @ U
        if Q.shape[2] == CHUNK:
            final = S
    return out, final
