"""What is written: one BIDS dataset of embeddings, predictions, their sidecars, and logs."""

from neurostorm_bids.derivatives.dataset import check_output_dir, write_dataset_files
from neurostorm_bids.derivatives.names import (
    OutputNames,
    check_distinct,
    derive_path,
    name_outputs,
)
from neurostorm_bids.derivatives.run import hash_configuration, is_finished, write_run
from neurostorm_bids.derivatives.status import RunStatus, make_run_uuid, write_status

__all__ = [
    "OutputNames",
    "RunStatus",
    "check_distinct",
    "check_output_dir",
    "derive_path",
    "hash_configuration",
    "is_finished",
    "make_run_uuid",
    "name_outputs",
    "write_dataset_files",
    "write_run",
    "write_status",
]
