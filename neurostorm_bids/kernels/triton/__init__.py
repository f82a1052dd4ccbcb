"""Kernels for a GPU in Triton; imported only where Triton is there and was chosen."""
