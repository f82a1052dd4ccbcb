"""Compiled kernels for a CPU; everything here also exists in PyTorch's words, more slowly."""
