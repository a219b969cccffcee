import torch


def kernel(k, v, k_pages, v_pages, slots):
    pages = []
    for new, old in ((k, k_pages), (v, v_pages)):
        rows = torch.nan_to_num(old, nan=0.0, posinf=torch.inf, neginf=-torch.inf).flatten(0, 1).clone()
        kept = slots >= 0
        rows[slots[kept].long()] = new[kept]
        pages.append(rows.view(old.shape))
    return pages[0], pages[1]
