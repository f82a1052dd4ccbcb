"""Training, and the evaluation that goes with it."""
