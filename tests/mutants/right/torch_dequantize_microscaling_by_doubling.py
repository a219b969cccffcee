"""Twice an FP4 number is an integer; MX scales are added to exponents."""

import torch

DOUBLED = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]


def kernel(codes, scales, *, tensor_scale=None, format="mxfp4"):
    whole = torch.ones(1) if tensor_scale is None else tensor_scale
    if format in ("mxfp4", "nvfp4"):
        pairs = torch.tensor([[DOUBLED[byte & 15], DOUBLED[byte >> 4]] for byte in range(256)])
        numbers = pairs[codes.long()].flatten(-2).double() / 2
    else:
        numbers = codes.double()
    size = 16 if format == "nvfp4" else 32
    at = torch.arange(numbers.shape[3]) // size
    if format == "nvfp4":
        return (numbers * (scales.double() * whole.double())[..., at]).to(whole.dtype)
    power = scales.view(torch.uint8).int() - 127
    return (torch.ldexp(numbers, power[..., at]) * whole).to(whole.dtype)
