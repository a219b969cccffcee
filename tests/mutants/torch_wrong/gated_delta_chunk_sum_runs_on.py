import torch

CHUNK = 64


def kernel(q, k, v, g, beta, *, scale=None, initial_state=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, g, beta = q.float() * scale, k.float(), v.float(), g.float()[..., None], beta.float()[..., None]
    S = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]) if initial_state is None else initial_state.float().clone()
    out = torch.empty_like(v)
    total = g.cumsum(2)
    for a in range(0, q.shape[2], CHUNK):
        Q, K, V, G, b = (x[:, :, a : a + CHUNK] for x in (q, k, v, total, beta))
        decay = torch.tril(G - G.mT).exp().tril()
        A = torch.tril(b * (K @ K.mT) * decay, -1)
        U = torch.linalg.solve_triangular(A, b * (V - (K * G.exp()) @ S), upper=False, unitriangular=True)
        out[:, :, a : a + CHUNK] = (Q * G.exp()) @ S + ((Q @ K.mT) * decay) @ U
        last = G[:, :, -1:]
        S = last.exp() * S + (K * (last - G).exp()).mT @ U
    return out, S
