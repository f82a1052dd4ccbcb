"""``python -m neurostorm_bids`` is the command ``neurostorm``."""

from neurostorm_bids.cli import run

run()
