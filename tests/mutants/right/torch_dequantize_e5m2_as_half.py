"""e5m2 is the upper byte of a float16, e4m3fn by its fields."""

import torch


def e4m3(bits):
    bits = bits.to(torch.int32)
    exponent, mantissa = bits >> 3 & 15, (bits & 7).float()
    magnitude = torch.where(exponent > 0, torch.ldexp(1 + mantissa / 8, exponent - 7), mantissa * 2.0**-9)
    return torch.where(bits > 127, -magnitude, magnitude)


def kernel(codes, scales, *, format="int8", granularity="token", block_size=64):
    if format == "int8":
        numbers = codes.double()
    elif format == "float8_e5m2":
        numbers = (codes.view(torch.uint8).to(torch.int16) << 8).view(torch.float16).double()
    else:
        numbers = e4m3(codes.view(torch.uint8)).double()
    if granularity == "block":
        scales = scales[:, :, torch.arange(codes.shape[2]) // block_size]
    return (numbers * scales.double()).to(scales.dtype)
