"""The participant and group levels as jobs of a cluster: composed here, scheduled by Slurm."""
