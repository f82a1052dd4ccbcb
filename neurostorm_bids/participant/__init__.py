"""The participant level: every chosen run through every model, into BIDS derivatives."""

from neurostorm_bids.participant.level import discover, run_participant_level

__all__ = ["discover", "run_participant_level"]
