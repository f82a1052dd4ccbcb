from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from neurostorm_bids.connectivity.regressors import read_regressors
from neurostorm_bids.errors import DataError
from neurostorm_bids.inputs import BoldRun, SourceDataset
from neurostorm_bids.train.nuisance import read_mean_displacement, tabulate_nuisance


def write_confounds(path, **columns):
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_mean_displacement_leaves_out_the_first_volume(tmp_path):
    path = write_confounds(tmp_path / "c.tsv", framewise_displacement=["n/a", 0.1, 0.3])
    assert read_mean_displacement(path) == pytest.approx(0.2)
    old = write_confounds(tmp_path / "old.tsv", FramewiseDisplacement=["n/a", 0.1, 0.3])
    assert read_mean_displacement(old) == pytest.approx(0.2)


def test_no_displacement_is_nan(tmp_path):
    assert np.isnan(read_mean_displacement(write_confounds(tmp_path / "c.tsv", csf=[1, 2])))


def test_regressors_are_those_of_the_table_with_gaps_as_zero(tmp_path):
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=12) for name in ("trans_x", "csf", "dvars")}
    columns["trans_x_derivative1"] = ["n/a", *rng.normal(size=11)]
    found = read_regressors(write_confounds(tmp_path / "c.tsv", **columns), n_volumes=12)
    assert found.names == ("trans_x", "csf", "trans_x_derivative1")
    assert found.signals.shape == (12, 3)
    assert found.signals[0, 2] == 0
    np.testing.assert_allclose(found.signals[:, 0], columns["trans_x"])


@pytest.mark.parametrize(("n_volumes", "n_regressors"), [(30, 8), (20, 6), (10, 0)])
def test_short_runs_keep_their_freedom(tmp_path, n_volumes, n_regressors):
    axes = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    path = write_confounds(
        tmp_path / "c.tsv", **{name: range(n_volumes) for name in (*axes, "csf", "white_matter")}
    )
    assert read_regressors(path, n_volumes=n_volumes).signals.shape == (n_volumes, n_regressors)


def test_a_table_of_another_run_is_refused(tmp_path):
    path = write_confounds(tmp_path / "c.tsv", csf=[1, 2])
    with pytest.raises(DataError, match=r"each of the run's 3 volumes.*found 2"):
        read_regressors(path, n_volumes=3)


def test_a_run_is_described_without_looking_at_the_brain(tmp_path):
    bold = tmp_path / "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"
    nib.Nifti1Image(np.zeros((2, 2, 2, 7), dtype=np.int16), np.eye(4)).to_filename(bold)
    confounds = write_confounds(tmp_path / "c.tsv", framewise_displacement=["n/a", 0.2])

    def make_run(table):
        return BoldRun(
            path=bold,
            entities={"sub": "01", "task": "rest"},
            space="MNI152NLin6Asym",
            repetition_time_s=2.0,
            brain_mask=None,
            confounds=table,
            dataset=SourceDataset(name="fmriprep", path=tmp_path),
        )

    table = tabulate_nuisance([make_run(confounds), make_run(None)])
    assert table.loc[0].to_dict() == {"mean_fd": 0.2, "n_volumes": 7.0, "repetition_time_s": 2.0}
    assert np.isnan(table["mean_fd"][1])


def test_tables_of_fmriprep_are_read(shared):
    folder = shared / "realdata" / "confounds"
    new = folder / "nilearn_test-v21_desc-confounds_timeseries.tsv"
    n_volumes = len(new.read_text().splitlines()) - 1
    assert 0 < read_mean_displacement(new) < 5
    assert np.isfinite(read_regressors(new, n_volumes=n_volumes).signals).all()
