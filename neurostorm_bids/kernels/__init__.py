"""Compiled kernels; everything here also exists in PyTorch's words, more slowly."""
