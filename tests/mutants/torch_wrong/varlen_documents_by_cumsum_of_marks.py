import torch


def document_ids(cu, total):
    marks = torch.zeros(total + 1, dtype=torch.long)
    marks[cu[1:-1]] = 1
    return marks.cumsum(0)[:total]


def kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, *, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    heads, kv = q.shape[1], k.shape[1]
    doc_q, doc_k = document_ids(cu_seqlens_q, len(q)), document_ids(cu_seqlens_k, len(k))
    unused = ~torch.isin(doc_k, doc_q)[:, None, None]
    k, v = (x.float().masked_fill(unused, 0.0).repeat_interleave(heads // kv, 1) for x in (k, v))
    s = torch.einsum("lhd,shd->hls", q.float() * scale, k)
    p = torch.softmax(s.masked_fill(doc_q[:, None] != doc_k, float("-inf")), -1).nan_to_num(0.0)
    return torch.einsum("hls,she->lhe", p, v).to(q.dtype)
