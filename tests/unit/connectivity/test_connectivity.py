from __future__ import annotations

import shutil
import socket

import nibabel as nib
import numpy as np
import pytest
from nilearn.connectome import ConnectivityMeasure
from nilearn.maskers import NiftiLabelsMasker, NiftiSpheresMasker
from templateflow import api

from neurostorm_bids.connectivity import (
    find_parcellation,
    make_spheres,
    measure,
    measure_clips,
    measure_connectivity,
    place_parcellation,
    read_signals,
)
from neurostorm_bids.connectivity.measure import RegionSignals
from neurostorm_bids.errors import MissingFileError

SPACE = "MNI152NLin6Asym"
AFFINE = np.diag([-6.0, 6, 6, 1])
AFFINE[:3, 3] = [90, -126, -72]
SHAPE = (31, 37, 31)
N_VOLUMES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise in a brain of 6 mm voxels, an atlas of six blocks on another grid, and a mask."""
    path = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    bold = 1000 + rng.normal(0, 10, (*SHAPE, N_VOLUMES))
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[3:-3, 3:-3, 3:-3] = 1
    nib.Nifti1Image(bold.astype(np.float32), AFFINE).to_filename(path / "bold.nii.gz")
    nib.Nifti1Image(mask, AFFINE).to_filename(path / "mask.nii.gz")
    labels = np.zeros(SHAPE, dtype=np.int16)
    for number in range(6):
        labels[4 + 4 * number : 7 + 4 * number, 8:28, 8:20] = 10 * (number + 1)
    nib.Nifti1Image(labels, AFFINE).to_filename(path / f"tpl-{SPACE}_atlas.nii.gz")
    return path


def correlate(folder, parcellation, **changes):
    options = {
        "space": SPACE,
        "repetition_time_s": 2.0,
        "brain_mask": folder / "mask.nii.gz",
    } | changes
    return measure_connectivity(folder / "bold.nii.gz", parcellation, **options)


def read_block_signals(folder):
    return read_signals(
        folder / "bold.nii.gz",
        find_parcellation(SPACE, folder / f"tpl-{SPACE}_atlas.nii.gz"),
        space=SPACE,
        repetition_time_s=2.0,
        brain_mask=folder / "mask.nii.gz",
    )


def test_a_clip_as_long_as_the_run_has_the_connectivity_of_the_run(folder):
    signals = read_block_signals(folder)
    found = measure_clips(signals, [0.0], 2.0 * N_VOLUMES, repetition_time_s=2.0)
    whole = correlate(folder, find_parcellation(SPACE, folder / f"tpl-{SPACE}_atlas.nii.gz"))
    np.testing.assert_array_equal(found.values[0], whole.values)
    np.testing.assert_allclose(found.means[0], 0, atol=1e-6)
    assert found.n_volumes.tolist() == [N_VOLUMES]


def test_each_clip_is_measured_by_itself(folder):
    signals = read_block_signals(folder).signals.copy()
    signals[10:20, 1] = signals[10:20, 0] + 5
    made = RegionSignals(signals, np.ones(6, dtype=bool), (), np.arange(N_VOLUMES))
    found = measure_clips(made, [0.0, 20.0, 79.0], 20.0, repetition_time_s=2.0)
    assert found.n_volumes.tolist() == [10, 10, 1]
    assert found.values[1, 0] > found.values[0, 0] + 0.2
    np.testing.assert_allclose(found.means[1], signals[10:20].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.means[2], signals[-1], rtol=1e-5)
    assert np.isfinite(found.values).all()


def as_matrix(values, n_regions):
    matrix = np.zeros((n_regions, n_regions))
    matrix[np.tril_indices(n_regions, k=-1)] = values
    return matrix + matrix.T


def test_regions_of_an_atlas_equal_those_of_nilearns_masker(folder):
    atlas = folder / f"tpl-{SPACE}_atlas.nii.gz"
    found = correlate(folder, find_parcellation(SPACE, atlas))
    masker = NiftiLabelsMasker(
        str(atlas),
        mask_img=str(folder / "mask.nii.gz"),
        detrend=True,
        standardize="zscore_sample",
        high_pass=0.01,
        t_r=2.0,
        clean_args={"filter": "cosine"},
        verbose=0,
    )
    signals = masker.fit_transform(str(folder / "bold.nii.gz"))
    expected = ConnectivityMeasure(kind="correlation").fit_transform([signals])[0]
    np.testing.assert_allclose(np.tanh(as_matrix(found.values, 6)), expected - np.eye(6), atol=1e-4)
    assert found.n_missing == 0


def test_spheres_equal_those_of_nilearns_masker(folder):
    spheres = make_spheres()
    run = measure.open_volumes(folder / "bold.nii.gz")
    labels = place_parcellation(spheres, measure._as_grid(run, SPACE))
    signals = measure._average(run, labels.ravel(order="F"), len(spheres.names))
    chosen = [0, 50, 120, 299]
    for at in chosen:
        masker = NiftiSpheresMasker(
            [tuple(spheres.centres_mm[at])], radius=spheres.radii_mm[at], standardize=None
        )
        expected = masker.fit_transform(str(folder / "bold.nii.gz"))[:, 0]
        np.testing.assert_allclose(signals[:, at], expected, rtol=1e-5)


def test_spheres_need_no_download_and_cover_the_brain():
    spheres = make_spheres()
    assert len(spheres.names) == len(set(spheres.names)) == 300
    assert spheres.n_pairs == 44_850
    assert (np.abs(spheres.centres_mm) < 110).all()
    assert set(spheres.radii_mm) == {4, 5}


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Return an empty folder of TemplateFlow; who asks the network fails."""
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    folder = tmp_path / "templateflow" / f"tpl-{SPACE}"
    folder.mkdir(parents=True)

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return folder


@pytest.mark.parametrize("name", [None, "auto"])
def test_without_an_atlas_on_this_machine_spheres_are_taken_and_that_is_told(home, name):
    stub = f"tpl-{SPACE}_res-02_atlas-Schaefer2018_desc-200Parcels7Networks_dseg.nii.gz"
    (home / stub).touch()  # as TemplateFlow leaves what it has not fetched
    found = find_parcellation(SPACE, name)
    assert (found.name, found.atlas) == ("Seitzman2018", None)
    (note,) = found.notes
    assert "nothing is downloaded that was not asked for" in note
    assert "--atlas Schaefer2018:200Parcels7Networks downloads it" in note


def test_an_atlas_on_this_machine_is_taken_without_asking_anybody(home, folder):
    for res, desc in (("01", "200Parcels7Networks"), ("02", "200Parcels17Networks")):
        name = f"tpl-{SPACE}_res-{res}_atlas-Schaefer2018_desc-{desc}_dseg.nii.gz"
        shutil.copy(folder / f"tpl-{SPACE}_atlas.nii.gz", home / name)
    found = find_parcellation(SPACE)
    assert found.name == "Schaefer2018:200Parcels7Networks"
    assert found.atlas.path.name.startswith(f"tpl-{SPACE}_res-01_")
    assert len(found.names) == 6


@pytest.mark.usefixtures("home")
def test_spheres_can_be_asked_for_by_name():
    assert find_parcellation(SPACE, "Seitzman2018").notes == ()


@pytest.mark.usefixtures("home")
def test_an_atlas_that_was_asked_for_and_cannot_be_had_is_an_error(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(api, "get", refuse)
    with pytest.raises(MissingFileError, match="no network"):
        find_parcellation(SPACE, "Schaefer2018:100")


def test_regions_that_follow_each_other_are_found(folder, tmp_path):
    image = nib.load(folder / "bold.nii.gz")
    bold = image.get_fdata()
    wave = np.random.default_rng(1).normal(0, 20, N_VOLUMES)
    for number, sign in ((0, 1), (3, 1), (5, -1)):
        bold[4 + 4 * number : 7 + 4 * number] += sign * wave
    nib.Nifti1Image(bold.astype(np.float32), AFFINE).to_filename(tmp_path / "bold.nii.gz")
    parcellation = find_parcellation(SPACE, folder / f"tpl-{SPACE}_atlas.nii.gz")
    found = measure_connectivity(
        tmp_path / "bold.nii.gz",
        parcellation,
        space=SPACE,
        repetition_time_s=2.0,
        brain_mask=folder / "mask.nii.gz",
    )
    matrix = np.tanh(as_matrix(found.values, 6))
    assert matrix[0, 3] > 0.7
    assert matrix[0, 5] < -0.7
    assert abs(matrix[0, 1]) < 0.5


def test_turning_the_array_with_its_affine_changes_nothing(folder, tmp_path):
    for name in ("bold", "mask"):
        image = nib.load(folder / f"{name}.nii.gz")
        turned = nib.as_closest_canonical(image)
        assert (turned.affine != image.affine).any()
        turned.to_filename(tmp_path / f"{name}.nii.gz")
    for parcellation in (
        make_spheres(),
        find_parcellation(SPACE, folder / f"tpl-{SPACE}_atlas.nii.gz"),
    ):
        straight = correlate(folder, parcellation).values
        turned = correlate(tmp_path, parcellation).values
        np.testing.assert_allclose(turned, straight, atol=1e-5)


def test_regions_outside_the_mask_are_missing_and_zero(folder, tmp_path):
    mask = np.asarray(nib.load(folder / "mask.nii.gz").dataobj).copy()
    mask[4:7] = 0
    nib.Nifti1Image(mask, AFFINE).to_filename(tmp_path / "mask.nii.gz")
    parcellation = find_parcellation(SPACE, folder / f"tpl-{SPACE}_atlas.nii.gz")
    whole = correlate(folder, parcellation)
    part = correlate(folder, parcellation, brain_mask=tmp_path / "mask.nii.gz")
    assert part.n_missing == 1
    matrix = as_matrix(part.values, 6)
    np.testing.assert_array_equal(matrix[0], 0)
    np.testing.assert_allclose(matrix[1:, 1:], as_matrix(whole.values, 6)[1:, 1:], atol=0.02)
    assert part.values.shape == whole.values.shape == (15,)


def test_what_motion_explains_is_removed(folder, tmp_path):
    rng = np.random.default_rng(2)
    motion = rng.normal(size=N_VOLUMES)
    image = nib.load(folder / "bold.nii.gz")
    bold = image.get_fdata() + 30 * motion
    nib.Nifti1Image(bold.astype(np.float32), AFFINE).to_filename(tmp_path / "bold.nii.gz")
    table = tmp_path / "confounds.tsv"
    table.write_text("trans_x\n" + "\n".join(map(str, motion)) + "\n")
    parcellation = find_parcellation(SPACE, folder / f"tpl-{SPACE}_atlas.nii.gz")
    options = {
        "space": SPACE,
        "repetition_time_s": 2.0,
        "brain_mask": folder / "mask.nii.gz",
    }
    dirty = measure_connectivity(tmp_path / "bold.nii.gz", parcellation, **options)
    clean = measure_connectivity(tmp_path / "bold.nii.gz", parcellation, confounds=table, **options)
    assert np.tanh(dirty.values).min() > 0.9
    assert np.abs(np.tanh(clean.values)).mean() < 0.3
    assert "1 regressors removed" in clean.steps[1]


def test_a_constant_run_gives_no_nan(tmp_path, folder):
    bold = np.full((*SHAPE, 10), 7, dtype=np.int16)
    nib.Nifti1Image(bold, AFFINE).to_filename(tmp_path / "bold.nii.gz")
    found = measure_connectivity(
        tmp_path / "bold.nii.gz",
        make_spheres(),
        space=SPACE,
        repetition_time_s=2.0,
        brain_mask=folder / "mask.nii.gz",
    )
    np.testing.assert_array_equal(found.values, 0)
    assert found.n_missing == 300


def test_real_runs_have_a_connectivity(shared):
    func = shared / "realdata" / "fmriprep-semireal" / "sub-02" / "ses-A" / "func"
    stem = "sub-02_ses-A_task-rest_space-MNI152NLin2009cAsym_desc-"
    found = measure_connectivity(
        func / f"{stem}preproc_bold.nii.gz",
        make_spheres(),
        space="MNI152NLin2009cAsym",
        repetition_time_s=3.0,
        brain_mask=func / f"{stem}brain_mask.nii.gz",
    )
    assert found.n_missing < 30
    assert np.isfinite(found.values).all()
    assert 0.02 < np.abs(np.tanh(found.values)).mean() < 0.9
