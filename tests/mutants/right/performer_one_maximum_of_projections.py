import torch


def kernel(q, k, v, projection, *, causal=False, eps=1e-6):
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    root = q.shape[-1] ** -0.25

    def logarithms(x, dims):
        x = x.to(wide)
        dash = (root * x) @ projection.to(wide).T
        diag = (x**2).sum(dim=-1, keepdim=True) / 2 * root**2
        top = dash.amax(dim=dims, keepdim=True) if dash.numel() else 0.0
        return dash - diag - top

    ratio = projection.shape[0] ** -0.5
    fq = ratio * torch.exp(logarithms(q, (-1,)))
    fk = ratio * torch.exp(logarithms(k, (-1, -2)))
    weights = fq @ fk.transpose(-1, -2)
    if causal:
        weights = torch.tril(weights)
    return (weights @ v.to(wide) / (weights.sum(-1, keepdim=True) + eps)).to(q.dtype)
