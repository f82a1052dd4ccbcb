from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from neurostorm_bids import __version__
from neurostorm_bids.errors import OutputError
from neurostorm_bids.train.report import write_pretraining_report
from neurostorm_bids.train.summary import RunNote

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collect what a page says, and check that its elements nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.pieces, self.images, self.rows = [], [], [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.pieces.append(data)
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.pieces).split())


@pytest.fixture(scope="module")
def html(tmp_path_factory, make_summary):
    """Return the text of a report."""
    path = tmp_path_factory.mktemp("report") / "out" / "pretrain.html"
    write_pretraining_report(path, make_summary())
    assert [file.name for file in path.parent.iterdir()] == ["pretrain.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    """Return the same report, read."""
    return Reader(html)


@pytest.fixture
def write(tmp_path, make_summary):
    """Return a function that writes a report of a changed summary and reads it."""

    def write(**changes):
        path = tmp_path / "pretrain.html"
        write_pretraining_report(path, make_summary(**changes))
        return Reader(path.read_text(encoding="utf-8"))

    return write


def test_the_report_says_what_was_trained_on_what(page):
    assert page.text.startswith("Pretraining of tiny_mae Pretraining of tiny_mae")
    assert "The weights" in page.text
    assert ["Software", f"neurostorm-bids {__version__}"] in page.rows
    assert ["Grid", "MNI152NLin6Asym, voxels of 8 x 8 x 8 mm, a volume every 0.8 s"] in page.rows
    assert ["Tokens of a clip", "8 x 8 x 8 x 8 = 4096"] in page.rows
    assert ["Channels of each stage", "12, 24"] in page.rows
    assert ["Parameters, encoder", "451,464"] in page.rows
    assert ["Device", "CPU"] in page.rows


def test_data_are_counted_by_dataset_and_together(page):
    rows = page.rows
    assert ["one", "training", "2", "2", "200"] in rows
    assert ["two", "training", "1", "1", "100"] in rows
    assert ["one", "validation", "2", "2", "200"] in rows
    assert ["all of them", "training", "2", "3", "300"] in rows


def test_one_dataset_needs_no_sum(write, make_summary):
    page = write(training_runs=make_summary().training_runs[:1])
    assert "all of them" not in page.text


def test_runs_that_are_missing_stand_beside_the_reason(page):
    rows = page.rows
    assert ["There is no repetition time.", "1", "sub-05_task-rest"] in rows
    (left_out,) = [row for row in rows if row[0] == "Another space was chosen."]
    assert left_out[1:] == ["9", "\n".join(f"sub-9{i}_task-rest" for i in range(9))]


def test_of_many_runs_left_out_for_one_reason_some_are_named(write):
    notes = [RunNote(f"run {i}", "Too short.") for i in range(20_000)]
    (row,) = [row for row in write(left_out=notes).rows if row[0] == "Too short."]
    assert row[1] == "20,000"
    assert row[2].endswith("run 9\nand 19,990 more")


def test_that_nothing_was_left_out_is_said(write):
    page = write(left_out=(), failed=())
    assert "Runs that could not be used: none." in page.text
    assert "Runs that were left out: none." in page.text


def test_regions_stand_with_their_errors_or_are_said_to_have_none(page):
    assert ["Precuneus", "4", "12", "0.25", "0.5", "0.5", "6"] in page.rows
    assert ["outside all regions", "-1", "3", "0.75", "0", "n/a", "n/a"] in page.rows
    assert "so there is no error, in: Lost." in page.text
    assert "1 of 2 regions have at least one patch. 60% of the grid's voxels" in page.text


def test_without_an_atlas_there_are_no_regions(write, make_summary):
    found = replace(make_summary().reconstruction, regions=None, survivors=None)
    assert "Error by region" not in write(reconstruction=found).text


def test_pictures_are_part_of_the_page_and_told_in_words(page):
    curves, slices = page.images
    assert all(image["src"].startswith("data:image/png;base64,") for image in (curves, slices))
    assert "0.3 at update 20" in curves["alt"]
    assert "voxel's mean where visible: 0.6" in curves["alt"]
    assert "50% of the voxels are masked" in slices["alt"]
    assert "root mean square of 0.5" in slices["alt"]


def test_the_example_says_which_side_is_which(page):
    text = page.text
    assert "sub-03_task-rest, volume 3 of 8 of the clip" in text
    assert "Neurological convention: the left of the brain (L) is on the left" in text


def test_an_objective_that_reconstructs_nothing_has_curves_only(write):
    page = write(reconstruction=None)
    assert len(page.images) == 1
    assert "Horizontal line" not in page.images[0]["alt"]
    assert "Example of a reconstruction" not in page.text


def test_options_of_a_group_are_named_by_it(page):
    rows = page.rows
    assert ["train.seed", "3"] in rows
    assert ["train.clip_norm", "not set"] in rows


def test_warnings_stand_in_the_report(page):
    assert "What to beware of The atlas is in another space." in page.text


def test_text_from_elsewhere_stays_text(write):
    hostile = "</title><script>alert(1)</script>"
    page = write(
        name=hostile,
        objective=hostile,
        failed=[RunNote(hostile, hostile)],
        warnings=[hostile],
        options={hostile: hostile},
    )
    assert page.text.count("alert(1)") == 8


def test_the_report_loads_nothing_and_is_small_enough_for_a_mail(html):
    assert not re.search(r"""https?://|@import|url\(|<link|src=(?!"data:)""", html)
    assert len(html) < 1_000_000


def test_the_same_summary_makes_the_same_report(html, tmp_path, make_summary):
    write_pretraining_report(tmp_path / "again.html", make_summary())
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html


def test_a_report_that_cannot_be_written_is_an_error_of_the_user(tmp_path, make_summary):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write"):
        write_pretraining_report(tmp_path / "file" / "pretrain.html", make_summary())
