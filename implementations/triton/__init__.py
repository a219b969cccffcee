"""Implementations in Triton: compiled on a GPU, and run by Triton's interpreter on the CPU where there is none."""
