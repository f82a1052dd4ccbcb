"""What is written: one BIDS dataset of embeddings, predictions, their sidecars, and logs."""

from neurostorm_bids.derivatives.attribution import is_attributed, write_attribution
from neurostorm_bids.derivatives.configuration import write_configuration
from neurostorm_bids.derivatives.dataset import (
    check_output_dir,
    remove_all_leftovers,
    write_dataset_files,
)
from neurostorm_bids.derivatives.names import (
    OutputNames,
    check_distinct,
    derive_path,
    name_outputs,
)
from neurostorm_bids.derivatives.resampled import is_resampled, write_resampled
from neurostorm_bids.derivatives.run import hash_configuration, is_finished, write_run
from neurostorm_bids.derivatives.status import RunStatus, write_status
from neurostorm_bids.derivatives.workdir import open_work_dir

__all__ = [
    "OutputNames",
    "RunStatus",
    "check_distinct",
    "check_output_dir",
    "derive_path",
    "hash_configuration",
    "is_attributed",
    "is_finished",
    "is_resampled",
    "name_outputs",
    "open_work_dir",
    "remove_all_leftovers",
    "write_attribution",
    "write_configuration",
    "write_dataset_files",
    "write_resampled",
    "write_run",
    "write_status",
]
