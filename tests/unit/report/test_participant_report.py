from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from neurostorm_bids.call import Call
from neurostorm_bids.derivatives import OutputNames, RunStatus, write_status
from neurostorm_bids.errors import DataError, SelectionError
from neurostorm_bids.report import figures, participant
from neurostorm_bids.report.participant import write_participant_report

from .conftest import AGE, make_model

LABEL = "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc"
HOSTILE = "<script>alert('x')</script>"


class Reader(HTMLParser):
    """Gather the tags of a page with their attributes, and its words."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def list(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def report(output, label="01"):
    return Reader(write_participant_report(output, label).read_text())


def write_failure(output, run, error, *, uuid="20260101-000000_x"):
    write_status(
        output,
        [RunStatus.of_failure(error, run=run.label, participant=run.participant)],
        call=Call(run_uuid=uuid),
        bids_dir=run.dataset.path,
        datasets=[run.dataset],
    )


def test_a_report_holds_every_figure_with_words_for_those_who_cannot_see_it(output, work_on):
    assert work_on() == ()
    page = report(output)
    drawn = sorted((output / "sub-01" / "figures").glob("*.svg"))
    assert len(drawn) == len(page.list("img")) == 5
    sources = {base64.b64decode(one["src"].partition(",")[2]) for one in page.list("img")}
    assert sources == {path.read_bytes() for path in drawn}
    assert all(len(one["alt"]) > 40 for one in page.list("img"))


def test_a_report_needs_nothing_else(output, work_on):
    work_on()
    html = write_participant_report(output, "01").read_text()
    assert "default-src 'none'" in html
    for tag, attributes in Reader(html).tags:
        for name in ("src", "href", "data", "action", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), (tag, value)
    assert "@import" not in html
    assert "url(" not in html


def test_headings_and_links_lead_through_the_page(output, work_on):
    work_on()
    page = report(output)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    anchors = {one.get("id") for _, one in page.tags}
    links = [one["href"] for one in page.list("a")]
    assert links
    assert all(link.removeprefix("#") in anchors for link in links)


def test_a_report_tells_numbers_model_steps_and_warnings(
    output, work_on, make_run, make_prediction
):
    work_on(make_run(warnings=("The header says 1 s.",)))
    text = report(output).text
    prediction = make_prediction()
    assert f"with a probability of {prediction.output.max():.3f}" in text
    assert "The header says 1 s." in text
    assert "ab" * 32 in text
    assert "Read 20 volumes of 24 x 24 x 24 voxels" in text
    assert "bids:fmriprep:sub-01/func/" in text
    assert "A note." in text
    assert "Esteban" in text


def test_the_same_files_make_the_same_report(output, work_on):
    work_on()
    first = write_participant_report(output, "01").read_bytes()
    assert write_participant_report(output, "01").read_bytes() == first


def test_a_report_has_all_runs_and_models_and_a_picture_of_the_series_once(
    output, work_on, make_run
):
    for target, model in ((None, make_model("base")), (AGE, make_model("elder", AGE, "cd" * 32))):
        label = model.provenance.name.capitalize()
        for session in ("A", "B"):
            run = make_run(f"sub-01_ses-{session}_task-rest_space-MNI152NLin6Asym_desc-preproc")
            names = OutputNames(
                scan=f"scan{label}", clip=f"clip{label}", target=target and target.name
            )
            work_on(run, target=target, model=model, names=names)
    page = report(output)
    assert "2 runs with results, read by 2 models (base, elder)" in page.text
    assert page.text.count("Motion and carpet plot") == 2
    assert "Recurrence of the embedding (base)" in page.text
    assert "Recurrence of the embedding (elder)" in page.text
    assert "ses-B_task-rest" in page.text


def test_a_run_that_failed_is_told_of_with_its_traceback(output, work_on, make_run):
    work_on()
    failed = make_run("sub-01_task-nback_space-MNI152NLin6Asym_desc-preproc")
    try:
        raise RuntimeError(HOSTILE)
    except RuntimeError as err:
        write_failure(output, failed, err)
    page = report(output)
    assert "1 run failed" in page.text
    assert f"RuntimeError: {HOSTILE}" in page.text
    assert "Traceback (most recent call last)" in page.text
    assert len(page.list("script")) == 1
    assert page.list("pre")[0]["tabindex"] == "0"  # it scrolls, so it can be reached by keyboard


def test_a_participant_whose_runs_all_failed_has_a_report(output, make_run):
    write_failure(output, make_run(), DataError("The run is empty."))
    page = report(output)
    assert "DataError: The run is empty." in page.text
    assert "0 runs with results" in page.text


def test_a_failure_is_forgotten_once_the_run_is_done(output, work_on, make_run):
    run = make_run()
    write_failure(output, run, DataError("The run is empty."))
    work_on(run)
    done = RunStatus(run=run.label, participant="01", state="done")
    for number, state in enumerate(("done", "skipped"), start=1):
        write_status(
            output,
            [replace(done, state=state)],
            call=Call(run_uuid=f"2026010{number}-000001_x"),
            bids_dir=run.dataset.path,
            datasets=[run.dataset],
        )
    assert "empty" not in report(output).text


def test_a_failure_is_forgotten_once_the_run_is_found_finished(output, work_on, make_run):
    run = make_run()
    work_on(run)
    write_failure(output, run, DataError("The run is empty."))
    assert "empty" in report(output).text
    write_status(
        output,
        [RunStatus(run=run.label, participant="01", state="skipped")],
        call=Call(run_uuid="20260102-000000_x"),
        bids_dir=run.dataset.path,
        datasets=[run.dataset],
    )
    assert "empty" not in report(output).text


def test_that_the_folder_could_not_be_searched_is_forgotten_once_it_was(output, make_run):
    run = make_run()
    error = DataError("The folder was not fetched.")
    for number, label in enumerate(("sub-01", run.label), start=1):
        write_status(
            output,
            [RunStatus.of_failure(error, run=label, participant="01")],
            call=Call(run_uuid=f"2026010{number}-000000_x"),
            bids_dir=run.dataset.path,
            datasets=[run.dataset],
        )
        assert "1 run failed" in report(output).text


def test_a_figure_that_cannot_be_drawn_is_a_warning(output, work_on, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no ink")

    monkeypatch.setattr(figures, "draw_carpet", fail)
    (warning,) = work_on()
    assert "no figure of the carpet plot: ValueError: no ink" in warning
    page = report(output)
    assert warning in page.text
    assert len(page.list("img")) == 4


def test_a_run_whose_series_cannot_be_measured_keeps_its_other_figures(
    output, work_on, monkeypatch
):
    monkeypatch.setattr(figures, "measure_signals", lambda _: 1 / 0)
    (warning,) = work_on()
    assert "ZeroDivisionError" in warning
    assert len(report(output).list("img")) == 2


def test_a_figure_that_was_lost_is_a_warning(output, work_on):
    work_on()
    next((output / "sub-01" / "figures").glob("*mosaic*.svg")).unlink()
    page = report(output)
    assert "A figure is missing" in page.text
    assert len(page.list("img")) == 4


def test_confounds_of_another_length_are_a_warning(output, work_on, make_run, tmp_path):
    path = tmp_path / "confounds.tsv"
    path.write_text("framewise_displacement\n" + "0.1\n" * 19)
    (warning,) = work_on(make_run(confounds=path))
    assert "19 rows for 20 volumes" in warning
    path.write_text("framewise_displacement\n" + "0.1\n" * 20)
    assert work_on(make_run(confounds=path)) == ()
    assert "0.10 mm on average" in report(output).text


def test_a_model_without_a_head_has_a_report(output, work_on):
    work_on(target=None)
    page = report(output)
    assert len(page.list("img")) == 4
    assert "Predictions" not in page.text


def test_figures_beyond_what_a_mail_takes_stay_files(output, work_on, monkeypatch):
    work_on()
    monkeypatch.setattr(participant, "MAX_FIGURES_BYTES", 60_000)
    page = report(output)
    assert 0 < len(page.list("img")) < 5
    assert "Left out to keep this page small" in page.text
    assert "sub-01/figures/sub-01_task-rest" in page.text


@pytest.mark.parametrize("name", ["../../secret.svg", "/etc/passwd", "a/b.svg", "figure.txt", ""])
def test_a_file_that_tells_of_figures_cannot_lead_elsewhere(output, work_on, name):
    work_on()
    (output / "secret.svg").write_text("secret")
    (seal,) = (output / "sub-01" / "figures").glob("*desc-figures*.json")
    told = json.loads(seal.read_text())
    told["Figures"] = [{**told["Figures"][0], "File": name}]
    seal.write_text(json.dumps(told))
    page = report(output)
    assert page.list("img") == []
    assert "A figure is missing" in page.text


def test_texts_of_strangers_become_no_markup(output, work_on, make_run):
    work_on(make_run(warnings=(HOSTILE,)), model=make_model(HOSTILE))
    (seal,) = (output / "sub-01" / "figures").glob("*desc-figures*.json")
    told = json.loads(seal.read_text())
    for entry in told["Figures"]:
        entry |= {"AltText": f'"{HOSTILE}', "Caption": HOSTILE, "Title": HOSTILE}
    seal.write_text(json.dumps(told))
    page = report(output)
    assert len(page.list("script")) == 1
    assert HOSTILE in page.text


def test_damaged_files_are_told_of_and_stop_nothing(output, work_on, make_run):
    work_on()
    work_on(make_run("sub-01_task-nback_space-MNI152NLin6Asym_desc-preproc"))
    next((output / "sub-01" / "func").glob("*rest*predictions.json")).write_text("{")
    next((output / "sub-01" / "func").glob("*nback*predictions.tsv")).write_text("level\nclip\n")
    (output / "sub-01" / "log" / "x").mkdir(parents=True)
    (output / "sub-01" / "log" / "x" / "status.json").write_text("[]")
    text = report(output).text
    assert "Expected JSON" in text
    assert "cannot be read" in text
    assert "x/status.json" in text


def test_runs_that_only_their_space_tells_apart_keep_their_whole_names(output, work_on, make_run):
    for space in ("MNI152NLin6Asym", "MNI152NLin2009cAsym"):
        work_on(make_run(f"sub-01_task-rest_space-{space}_desc-preproc"))
    headings = report(output).text
    assert "sub-01_task-rest_space-MNI152NLin2009cAsym_desc-preproc" in headings


def test_nobody_has_no_report(output):
    with pytest.raises(SelectionError, match="no results of participant 09"):
        write_participant_report(output, "09")


def test_the_spread_of_a_single_clip_is_not_known(output, work_on):
    work_on(n_clips=1, spread=np.full(2, np.nan, dtype="f4"))
    assert "n/a" in report(output).text


def test_what_a_call_used_is_shown_once_it_is_drawn(output, work_on, make_run):
    run = make_run()
    work_on(run)
    write_failure(output, run, DataError("x"), uuid="20260101-000000_a")
    folder = output / "logs" / "20260101-000000_a"
    (folder / "resources.svg").write_text("<svg/>")
    (output / "logs" / "of_others").mkdir()
    (output / "logs" / "of_others" / "resources.svg").write_text("<svg/>")
    page = report(output)
    assert len(page.list("img")) == 6
    assert "What the call 20260101-000000_a used" in page.text


def test_attributions_of_the_model_are_drawn_and_told_of(output, work_on):
    work_on()
    stem = "sub-01_task-rest_space-MNI152NLin6Asym_atlas-Toy_desc-{}_attribution"
    for desc in ("sex", "age"):
        path = output / "sub-01" / "func" / f"{stem.format(desc)}.tsv"
        path.write_text("index\tname\tattribution\n1\tA\t0.5\n")
        about = {"Method": "occlusion", "Atlas": "Toy", "ModelSHA256": "ab" * 32}
        path.with_suffix(".json").write_text(json.dumps(about))
    work_on(names=OutputNames(target="sex", attribution="sex"))
    page = report(output)
    assert "Attribution: sex, by the regions of Toy" in page.text
    assert "Attribution: age" not in page.text
    assert "occlusion of regions (Zeiler & Fergus, 2014) with the atlas Toy" in page.text


def test_displacement_of_volumes_that_were_dropped_is_not_drawn(
    output, work_on, make_run, series, tmp_path
):
    path = tmp_path / "confounds.tsv"
    path.write_text("framewise_displacement\n" + "9\n" * 3 + "0.1\n" * 20)
    late = replace(series, start_s=6.0)
    assert work_on(make_run(confounds=path), series=late) == ()
    assert "0.10 mm on average, 0.10 mm at most" in report(output).text
