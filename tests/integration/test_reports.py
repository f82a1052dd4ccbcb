"""Reports from outside: written as participants end, and again from what is on the disk."""

from __future__ import annotations

import shutil

import pytest

from neurostorm_bids.cli import main
from neurostorm_bids.demo_data import write_dataset, write_models


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of three participants, one of whose runs is damaged, and what came of it."""
    folder = tmp_path_factory.mktemp("reports")
    write_dataset(folder / "fmriprep", n_volumes=16)
    bold = next((folder / "fmriprep" / "sub-03").rglob("*ses-B*NLin6Asym*desc-preproc_bold.nii.gz"))
    bold.write_bytes(bold.read_bytes()[:2000])
    write_models(folder / "models")
    model = str(folder / "models" / "demo-age")
    assert call(folder, "out", "--device", "cpu", "--model", model) == 1
    return folder


def call(folder, output, *arguments):
    return main([str(folder / "fmriprep"), str(folder / output), "participant", *arguments])


@pytest.fixture
def output(made, tmp_path):
    """A copy of the output that a test may change, beside the dataset's."""
    (tmp_path / "fmriprep").symlink_to(made / "fmriprep")
    return shutil.copytree(made / "out", tmp_path / "out")


def read_reports(output):
    paths = [*output.glob("sub-*.html"), *(output / "logs").glob("CITATION.*")]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}


def test_every_participant_has_a_report_also_where_a_run_failed(made):
    reports = read_reports(made / "out")
    assert {"sub-01.html", "sub-02.html", "sub-03.html", "logs/CITATION.md"} <= reports.keys()
    page = reports["sub-03.html"].decode()
    assert "1 run failed" in page
    assert "ses-B" in page
    assert str(made) not in page


def test_reports_are_rebuilt_as_they_were(output):
    before = read_reports(output)
    for name in before:
        (output / name).unlink()
    status = call(output.parent, "out", "--reports-only", "--boilerplate-only")
    assert status == 0
    assert read_reports(output) == before


def test_only_the_reports_asked_for_are_rebuilt(output):
    before = read_reports(output)
    for name in before:
        (output / name).unlink()
    assert call(output.parent, "out", "--reports-only", "--participant-label", "02") == 0
    assert list(read_reports(output)) == ["sub-02.html"]
    assert call(output.parent, "out", "--boilerplate-only") == 0
    assert {name: before[name] for name in read_reports(output)} == read_reports(output)


def test_a_call_with_nothing_to_do_writes_the_report_that_a_killed_one_did_not(made, output):
    before = read_reports(output)
    (output / "sub-01.html").unlink()
    model = str(made / "models" / "demo-age")
    arguments = ["--device", "cpu", "--model", model, "--participant-label", "01"]
    assert call(output.parent, "out", *arguments) == 0
    assert read_reports(output)["sub-01.html"] == before["sub-01.html"]


def test_without_results_there_is_nothing_to_report_on(made, tmp_path, capsys):
    (tmp_path / "fmriprep").symlink_to(made / "fmriprep")
    assert call(tmp_path, "none", "--reports-only") == 18
    assert "no results" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
