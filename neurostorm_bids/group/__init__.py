"""The group level: tables over participants, scores, re-identification, and a report.

It reads what the participant level wrote, and never a BOLD image or a model.
"""

from neurostorm_bids.group.options import GroupOptions, TargetChoice

__all__ = ["GroupOptions", "TargetChoice"]
