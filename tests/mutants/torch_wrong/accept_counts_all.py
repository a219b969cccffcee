import torch


def kernel(p, q, draft, u):
    n = draft.shape[1]
    a = p[:, :n].float().gather(2, draft[..., None]).squeeze(-1)
    b = q.float().gather(2, draft[..., None]).squeeze(-1)
    return (u.float() * b <= a).sum(dim=1)
