"""Planted traps, through the command: noticed, and told in log, status, sidecar and report."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_cohort, write_encoder
from neurostorm_bids.report.figures import Drawn

SPACE = "space-MNI152NLin6Asym"
N_VOLUMES = 16


def find(folder, label, end):
    return folder / f"sub-{label}" / "func" / f"sub-{label}_task-rest_{end}"


class Scan:
    """One participant's files, which a trap changes."""

    def __init__(self, folder, label):
        self.bold = find(folder, label, f"{SPACE}_desc-preproc_bold.nii.gz")
        self.mask = find(folder, label, f"{SPACE}_desc-brain_mask.nii.gz")
        self.sidecar = find(folder, label, f"{SPACE}_desc-preproc_bold.json")
        self.confounds = find(folder, label, "desc-confounds_timeseries.tsv")

    def change(self, path, function):
        """Change an image's values, affine and header; the function may return new values."""
        image = nib.load(path)
        values = np.asanyarray(image.dataobj).copy()
        header = image.header.copy()
        changed = function(values, header)
        new = nib.Nifti1Image(values if changed is None else changed, None, header)
        new.to_filename(path)

    def tell(self, **facts):
        self.sidecar.write_text(json.dumps(json.loads(self.sidecar.read_text()) | facts))


def shift(header, millimetres):
    affine = header.get_sform()
    affine[1, 3] += millimetres
    header.set_sform(affine, code=4)
    header.set_qform(affine, code=4)


def flip_sform(_, header):
    affine = header.get_sform()
    affine[0] *= -1
    header.set_sform(affine, code=4)


def move_both(scan):
    for path in (scan.bold, scan.mask):
        scan.change(path, lambda _, header: shift(header, 30))


def spoil_values(scan, function):
    scan.change(scan.bold, function)


def set_volume(values, _):
    values[..., 5] = 30_000


def set_value(values, _):
    values[12, 14, 12, 5] = 32_000


def set_slope(scan):
    content = bytearray(gzip.decompress(scan.bold.read_bytes()))
    content[112:116] = np.float32(np.inf).tobytes()
    scan.bold.write_bytes(gzip.compress(bytes(content)))


def shorten(table):
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-4]) + "\n")


def half_still(values, _):
    values[:, : values.shape[1] // 2 - 3] = values[:, : values.shape[1] // 2 - 3, :, :1]


WARNED = {
    "flipped": (lambda s: spoil_values(s, flip_sform), "disagree about left and right"),
    "moved": (move_both, "from that of the MNI template"),
    "clock": (lambda s: s.tell(RepetitionTime=1.0), "in the sidecar"),
    "no-mask": (lambda s: s.mask.unlink(), "No brain mask was given"),
    "slope": (set_slope, "scl_slope is inf"),
    "spike-volume": (lambda s: spoil_values(s, set_volume), "are spikes"),
    "spike-value": (lambda s: spoil_values(s, set_value), "the z-score rests on them"),
    "half-still": (lambda s: spoil_values(s, half_still), "same value in every"),
    "mask-full": (
        lambda s: s.change(s.mask, lambda v, _: np.ones_like(v)),
        "marks every voxel of its image",
    ),
}
FAILED = {
    "milliseconds": (lambda s: s.tell(RepetitionTime=2000), "looks like milliseconds"),
    "tr-zero": (lambda s: s.tell(RepetitionTime=0), "above 0 s"),
    "mask-empty": (lambda s: s.change(s.mask, lambda v, _: v * 0), "is empty"),
    "mask-elsewhere": (
        lambda s: s.change(s.mask, lambda _, header: shift(header, 200)),
        "of the brain lies in view",
    ),
    "mask-over": (
        lambda s: s.change(
            s.mask, lambda v, _: (np.indices(v.shape)[0] < len(v) - 1).astype(v.dtype)
        ),
        "have the same value in every volume",
    ),
    "native": (
        lambda s: [s.change(p, lambda _, h: shift(h, 150)) for p in (s.bold, s.mask)],
        "of the brain lies in view",
    ),
    "confounds": (
        lambda s: shorten(s.confounds),
        f"Expected a row for each of the {N_VOLUMES} volumes",
    ),
    "constant": (
        lambda s: spoil_values(s, lambda v, _: v[..., :1].repeat(N_VOLUMES, 3)),
        "no signal",
    ),
    "zero": (lambda s: spoil_values(s, lambda v, _: v * 0), "no signal"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One call over participants each of whom has a trap, and one who has none."""
    folder = tmp_path_factory.mktemp("traps")
    traps = {"sound": (lambda _: None, ""), **WARNED, **FAILED}
    write_cohort(folder / "in", n_people=len(traps), n_volumes=N_VOLUMES)
    for number, (plant, _) in enumerate(traps.values(), 1):
        plant(Scan(folder / "in", f"{number:02}"))
    encoder = write_encoder(folder)
    call = [str(folder / "in"), str(folder / "out"), "participant", "--model", str(encoder)]
    words = ["--device", "cpu", "--nprocs", "1", "--fd-threshold", "9", "-w", str(folder / "w")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawn, "add", lambda *_: None)  # which takes longer than all the rest
        status = main([*call, *words])
    labels = {name: f"{number:02}" for number, name in enumerate(traps, 1)}
    return folder / "out", labels, status


def read_status(study, name):
    output, labels, _ = study
    (path,) = (output / f"sub-{labels[name]}" / "log").rglob("status.json")
    (run,) = json.loads(path.read_text())["Runs"]
    return run


def test_a_sound_run_gives_no_warning_and_some_failures_give_status_1(study):
    assert read_status(study, "sound")["Warnings"] == []
    assert study[2] == 1


@pytest.mark.parametrize("name", WARNED)
def test_a_trap_that_is_survived_is_told_everywhere(study, name):
    output, labels, _ = study
    words = WARNED[name][1]
    run = read_status(study, name)
    assert run["State"] == "done"
    assert any(words in warning for warning in run["Warnings"]), run["Warnings"]
    (sidecar,) = (output / f"sub-{labels[name]}").rglob("*scan_embedding.json")
    assert any(words in one for one in json.loads(sidecar.read_text())["Warnings"])
    assert words in (output / f"sub-{labels[name]}.html").read_text()


@pytest.mark.parametrize("name", FAILED)
def test_a_trap_that_spoils_a_run_fails_it_with_the_reason(study, name):
    output, labels, _ = study
    run = read_status(study, name)
    assert (run["State"], run["ExitStatus"]) == ("failed", 65)
    assert FAILED[name][1] in run["Message"]
    assert not list(Path(output / f"sub-{labels[name]}").rglob("*_embedding.tsv"))
