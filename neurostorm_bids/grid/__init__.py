"""A BOLD file becomes the series that a model reads: space, time, mask, scale, clips."""
