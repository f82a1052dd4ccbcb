"""Run the task in the current folder; see `neurostorm_bids.brainlife.task`."""

import sys
from pathlib import Path

from neurostorm_bids.brainlife.task import run_task

sys.exit(run_task(Path.cwd()))
