"""What a user asks to be done to a run before it is read: volumes dropped, censored, denoised."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from neurostorm_bids.errors import UsageError
from neurostorm_bids.inputs.files import read_json_object

WarpMode = Literal["auto", "download", "off"]
STRATEGIES = ("simple", "scrubbing", "compcor", "ica_aroma")


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What is done to a run before it is scaled; by default nothing.

    Attributes
    ----------
    denoise : a strategy of nilearn's ``load_confounds_strategy``, or the arguments of its
        ``load_confounds`` as JSON with sorted keys; None for none. From `parse_denoise`.
    dummy_scans : volumes to drop at the beginning; ``auto`` for those that the confounds mark as
        not in steady state.
    fd_threshold_mm : framewise displacement above which a volume is censored; None for none.
    warp : whether a run in another standard space than the grid's is warped with TemplateFlow's
        transform: ``auto`` where it is on this machine, ``download``, or ``off``.
    """

    denoise: str | None = None
    dummy_scans: int | Literal["auto"] = 0
    fd_threshold_mm: float | None = None
    warp: WarpMode = "auto"

    def __post_init__(self) -> None:
        if self.dummy_scans != "auto" and self.dummy_scans < 0:
            raise UsageError(
                f"--dummy-scans is auto or a number of volumes from 0; found {self.dummy_scans}."
            )
        fd = self.fd_threshold_mm
        if fd is not None and not 0 < fd < math.inf:
            raise UsageError(f"--fd-threshold is a number of millimetres above 0; found {fd:g}.")
        if self.warp not in get_args(WarpMode):
            raise UsageError(
                f"--warp is one of {', '.join(get_args(WarpMode))}; found {self.warp!r}."
            )

    @property
    def needs_confounds(self) -> bool:
        """Whether it cannot be done without a run's table of confounds."""
        return bool(self.list_options())

    @property
    def strategy(self) -> str | None:
        """How the denoising is called: the strategy's name, or ``custom``."""
        is_custom = self.denoise is not None and self.denoise not in STRATEGIES
        return "custom" if is_custom else self.denoise

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of nilearn's ``load_confounds``, where they were given."""
        return json.loads(self.denoise or "{}") if self.strategy == "custom" else {}

    def list_options(self) -> list[str]:
        """List the options given that need confounds."""
        given = {
            "--denoise": self.denoise is not None,
            "--dummy-scans auto": self.dummy_scans == "auto",
            "--fd-threshold": self.fd_threshold_mm is not None,
        }
        return [option for option, is_given in given.items() if is_given]

    def check_denoised(self, name: str) -> None:
        """Refuse to denoise, or shorten by confounds, a file that was denoised already.

        Raises
        ------
        UsageError
            If that was asked for.
        """
        if self.denoise is not None or self.dummy_scans == "auto":
            option = "--denoise" if self.denoise is not None else "--dummy-scans auto"
            raise UsageError(
                f"{name} was denoised before, and {option} needs the series as fMRIPrep left it. "
                f"Leave {option} out for this dataset, or name the one of fMRIPrep."
            )

    def tell(self) -> list[str]:
        """Say in sentences what is done to every run; nothing for nothing."""
        told = []
        if self.dummy_scans:
            which = "not in steady state" if self.dummy_scans == "auto" else f"{self.dummy_scans}"
            told.append(f"Volumes dropped at the beginning of every run: {which}.")
        if self.denoise is not None:
            how = f" ({self.denoise})" if self.strategy == "custom" else ""
            told.append(f"Confounds were regressed out: {self.strategy}{how}, means kept.")
        if self.fd_threshold_mm is not None:
            told.append(
                f"Volumes with a framewise displacement above {self.fd_threshold_mm:g} mm were "
                "censored."
            )
        return told

    def describe(self) -> dict[str, Any]:
        """Return what decides the values of a run, ready for JSON."""
        return {
            "denoise": self.denoise,
            "dummy_scans": self.dummy_scans,
            "fd_threshold_mm": self.fd_threshold_mm,
        }


def parse_denoise(text: str | None) -> str | None:
    """Read what ``--denoise`` was given: a strategy in any case, JSON, or the path of a JSON file.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if text is None or text.lower() in {"none", ""}:
        return None
    name = text.lower().replace("-", "_")
    if name in STRATEGIES:
        return name
    try:
        is_file = not text.lstrip().startswith("{") and Path(text).is_file()
        content = read_json_object(Path(text), error=UsageError) if is_file else json.loads(text)
    except (OSError, ValueError, RecursionError) as err:
        raise UsageError(
            f"--denoise is one of {', '.join(STRATEGIES)}, or the arguments of nilearn's "
            'load_confounds as JSON, such as {"strategy": ["motion", "wm_csf"], "motion": '
            f'"basic"}}; found {text[:80]!r}.'
        ) from err
    strategy = content.get("strategy") if isinstance(content, dict) else None
    if not (isinstance(strategy, list) and strategy and all(isinstance(s, str) for s in strategy)):
        raise UsageError(
            "The JSON of --denoise names the arguments of nilearn's load_confounds, of which "
            f"strategy, a list of at least one name, must be given; found {text[:80]!r}."
        )
    return json.dumps(content, sort_keys=True)


def parse_dummy_scans(text: str) -> int | Literal["auto"]:
    """Read ``auto`` or a number of volumes.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise UsageError(f"--dummy-scans is auto or a number of volumes from 0; found {text!r}.")
    return int(text)
