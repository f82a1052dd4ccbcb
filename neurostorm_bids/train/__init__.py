"""Training: which clips are seen in which order, one loop, and what survives an interruption."""
