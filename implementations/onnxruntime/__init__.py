"""Attention operators of ONNX Runtime on the CPU, each called through a model of one node. Arrays are those of NumPy."""
