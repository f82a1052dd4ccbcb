"""The network: tensors only. No BIDS, no images; paths in ``checkpoints`` alone."""
