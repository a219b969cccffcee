import torch


def kernel(p, q, draft, u):
    drafted = draft.long()[..., None]
    target = torch.gather(p[:, :-1], 2, drafted)[..., 0]
    proposed = torch.gather(q, 2, drafted)[..., 0]
    ratio = torch.where(proposed > 0, target / proposed, torch.ones_like(target)).half()
    rejected = u > ratio.to(u.dtype)
    return torch.cumprod((~rejected).long(), dim=1).sum(dim=1)
