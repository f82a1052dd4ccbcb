"""Strangers' images: headers that lie, streams that end, values that are none."""

from __future__ import annotations

import gzip
import json
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_encoder
from neurostorm_bids.grid.atlas import find_atlas, place_on_grid
from neurostorm_bids.grid.series import grid_run
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.report.figures import Drawn
from tests.robustness.corpus import LONG, cases, check_text, damage, obeying
from tests.robustness.test_fuzz_texts import assert_told

SPEC = GridSpec.published(12)
SHAPE = (7, 9, 8)
# Voxels of 24 mm around the brain of an MNI space.
AFFINE = np.array([[-24.0, 0, 0, 72], [0, 24.0, 0, -118], [0, 0, 24.0, -70], [0, 0, 0, 1]])

# name: offset in the 348 bytes of NIfTI-1, format
FIELDS = {
    "sizeof_hdr": (0, "<i"),
    "dim_info": (39, "<B"),
    **{f"dim{i}": (40 + 2 * i, "<h") for i in range(8)},
    "intent_p1": (56, "<f"),
    "intent_code": (68, "<h"),
    "datatype": (70, "<h"),
    "bitpix": (72, "<h"),
    "slice_start": (74, "<h"),
    **{f"pixdim{i}": (76 + 4 * i, "<f") for i in range(8)},
    "vox_offset": (108, "<f"),
    "scl_slope": (112, "<f"),
    "scl_inter": (116, "<f"),
    "slice_end": (120, "<h"),
    "slice_code": (122, "<B"),
    "xyzt_units": (123, "<B"),
    "cal_max": (124, "<f"),
    "qform_code": (252, "<h"),
    "sform_code": (254, "<h"),
    **{f"quatern{i}": (256 + 4 * i, "<f") for i in range(6)},
    **{f"srow{i}": (280 + 4 * i, "<f") for i in range(12)},
    "magic": (344, "<I"),
    "extension": (348, "<I"),
    "esize": (352, "<i"),
    "ecode": (356, "<i"),
}
DATATYPES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 255, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304)
INTENTS = (0, 2, 3, 1001, 1002, 1005, 1007, 2001, 3001)
FLOATS = (0.0, -0.0, 1.0, -1.0, 2.0, 800.0, 1e-40, 1e38, -1e38, np.nan, np.inf, -np.inf, 352.0, 1e9)
INTEGERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, -1, -32768, 32767, 255, 512, 2000)


def make_image(dtype=np.int16, *, n_volumes=6, seed=0):
    """Return a small series in MNI space, as bytes of an uncompressed NIfTI-1 file."""
    rng = np.random.default_rng(seed)
    grid = np.indices(SHAPE).reshape(3, -1).T @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    brain = (np.abs((grid - [0, -22, 9.5]) / [75, 90, 70]) ** 2).sum(axis=1) < 1
    values = 1000 * brain.reshape(SHAPE)[..., None] * (1 + 0.02 * rng.standard_normal(n_volumes))
    values = values + 5 * brain.reshape(SHAPE)[..., None] * rng.standard_normal((*SHAPE, n_volumes))
    image = nib.Nifti1Image(np.rint(values).astype(dtype), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((24, 24, 24, 2.0))
    image.set_sform(AFFINE, code="mni")
    image.set_qform(AFFINE, code="mni")
    return image.to_bytes(), brain.reshape(SHAPE)


INT16, BRAIN = make_image()
FLOAT64, _ = make_image(np.float64)
MASK = nib.Nifti1Image(BRAIN.astype(np.uint8), AFFINE).to_bytes()


@st.composite
def nifti_bytes(draw, *contents):
    """Return an image whose header lies in some fields, cut or damaged, and perhaps compressed."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(list(FIELDS)))
        offset, form = FIELDS[name]
        if form == "<f":
            value = draw(st.sampled_from(FLOATS) | st.floats(width=32))
        elif name == "datatype":
            value = draw(st.sampled_from(DATATYPES))
        elif name == "intent_code":
            value = draw(st.sampled_from(INTENTS))
        else:
            low, high = {
                "<B": (0, 255),
                "<h": (-32768, 32767),
                "<i": (-(2**31), 2**31 - 1),
                "<I": (0, 2**32 - 1),
            }[form]
            value = draw(
                st.sampled_from([n for n in INTEGERS if low <= n <= high]) | st.integers(low, high)
            )
        struct.pack_into(form, content, offset, value)
    if draw(st.booleans()):
        content = bytearray(draw(damage(bytes(content))))
    if not draw(st.booleans()):
        return bytes(content), ".nii"
    packed = gzip.compress(bytes(content), mtime=0)
    return (draw(damage(packed)) if draw(st.booleans()) else packed), ".nii.gz"


@cases(0.16, short=60)
@given(
    bold=nifti_bytes(INT16, INT16, FLOAT64),
    mask=st.none() | nifti_bytes(MASK),
    seconds=st.sampled_from([2.0, 2.0, 0.001, 60.0, 99.0]),
)
def test_series_and_masks(bold, mask, seconds):
    with obeying("NIfTI series and masks") as (folder, begin), np.errstate(all="ignore"):
        path = folder / f"bold{bold[1]}"
        path.write_bytes(bold[0])
        mask_path = None
        if mask is not None:
            mask_path = folder / f"mask{mask[1]}"
            mask_path.write_bytes(mask[0])
        begin()
        series = grid_run(path, SPEC, repetition_time_s=seconds, brain_mask=mask_path)
        clip = series.read_clip(0, 4)
        assert np.isfinite(clip).all()
        for text in (*series.warnings, *series.steps):
            check_text(text)


ATLAS = nib.Nifti1Image(
    (BRAIN * np.arange(1, SHAPE[0] + 1)[:, None, None]).astype(np.int16), AFFINE
).to_bytes()


@cases(0.03, short=10)
@given(
    atlas=nifti_bytes(ATLAS),
    table=st.sampled_from(
        [
            b"index\tname\n1\ta\n2\tb\n",
            b"index\tname\n" + b"9" * 5000 + b"\ta\n",
            b"\xff\xfe",
            b"",
            b'"',
        ]
    ),
)
def test_atlases(atlas, table):
    with obeying("atlases") as (folder, begin), np.errstate(all="ignore"):
        path = folder / f"atlas{atlas[1]}"
        path.write_bytes(atlas[0])
        (folder / "atlas.tsv").write_bytes(table)
        begin()
        labels = place_on_grid(find_atlas(path, space=SPEC.space), SPEC)
        assert labels.shape == SPEC.shape


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(write_encoder(tmp_path_factory.mktemp("encoder")))


@cases(0.0025, short=1)
@given(
    images=st.lists(st.tuples(nifti_bytes(INT16), nifti_bytes(MASK)), min_size=8, max_size=8),
    seconds=st.sampled_from([2.0, 0.8]),
)
def test_a_dataset_of_damaged_images_through_the_command(
    encoder, capsys, monkeypatch, images, seconds
):
    if not LONG:  # pictures take longer than all the rest
        monkeypatch.setattr(Drawn, "add", lambda *_: None)
    with obeying("datasets through the command") as (folder, begin), np.errstate(all="ignore"):
        for number, (bold, mask) in enumerate(images):
            func = folder / "in" / f"sub-{number:02}" / "func"
            func.mkdir(parents=True)
            stem = f"sub-{number:02}_task-rest_space-MNI152NLin6Asym_desc-"
            (func / f"{stem}preproc_bold{bold[1]}").write_bytes(bold[0])
            (func / f"{stem}preproc_bold.json").write_text(json.dumps({"RepetitionTime": seconds}))
            (func / f"{stem}brain_mask{mask[1]}").write_bytes(mask[0])
        begin()
        call = [str(folder / "in"), str(folder / "out"), "participant", "--model", encoder]
        status = main([*call, "--device", "cpu", "--nprocs", "1", "-w", str(folder / "work")])
        assert_told(status, capsys.readouterr())
        crashes = list((folder / "out").rglob("crash-*.txt"))
        assert not crashes, crashes[0].read_text()[-3000:]
