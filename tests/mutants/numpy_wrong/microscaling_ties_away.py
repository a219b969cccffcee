"""Microscaling formats: MXFP4, MXFP8 and NVFP4."""

import ml_dtypes
import numpy as np

ELEMENTS = {"mxfp4": ("float4_e2m1fn", 2, 6), "mxfp8_e4m3": ("float8_e4m3fn", 8, 448), "mxfp8_e5m2": ("float8_e5m2", 15, 57344)}


def cut(x, size):
    count = -(-x.shape[3] // size)
    out = np.zeros((*x.shape[:3], count * size), np.float32)
    out[..., : x.shape[3]] = x
    return out.reshape(*x.shape[:3], count, size)


def join(blocks, width):
    return blocks.reshape(*blocks.shape[:3], blocks.shape[3] * blocks.shape[4])[..., :width]


def packed(numbers):
    bits = numbers.view(np.uint8)
    return bits[..., 0::2] | (bits[..., 1::2] << 4)


def kernel(x, *, format="mxfp4"):
    if format == "nvfp4":
        blocks = cut(x, 16)
        largest = np.abs(blocks).max(axis=-1, initial=0)
        whole = largest.max(initial=0)
        tensor_scale = np.float32(whole / np.float32(6 * 448) if whole > 0 else 1)
        scales = (largest / np.float32(6) / tensor_scale).clip(0, 448).astype(ml_dtypes.float8_e4m3fn)
        factors = scales.astype(np.float32) * tensor_scale
        numbers = np.divide(blocks, factors[..., None], out=np.zeros_like(blocks), where=factors[..., None] > 0)
        return packed(join(numbers.clip(-6, 6), x.shape[3]).astype(ml_dtypes.float4_e2m1fn)), scales, np.array([tensor_scale])
    element, emax, limit = ELEMENTS[format]
    blocks = cut(x, 32)
    largest = np.abs(blocks).max(axis=-1, initial=0)
    exponent = np.frexp(largest)[1] - 1 - emax
    exponent = np.where(largest == 0, -127, exponent.clip(-127, 127))
    ratio = np.ldexp(blocks, -exponent[..., None])
    ratio = np.nextafter(ratio, np.copysign(np.float32(np.inf), ratio)) if format == "mxfp4" else ratio
    numbers = join(ratio.clip(-limit, limit), x.shape[3]).astype(getattr(ml_dtypes, element))
    return packed(numbers) if format == "mxfp4" else numbers, (exponent + 127).astype(np.uint8), np.ones(1, np.float32)
