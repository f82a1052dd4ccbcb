"""Pictures and the report."""

from __future__ import annotations

import re

import pytest

from neurostorm_bids.derivatives.tables import format_table
from neurostorm_bids.group.collect import collect_results
from neurostorm_bids.group.colours import choose_colourings, make_colouring
from neurostorm_bids.group.level import summarise_group
from neurostorm_bids.group.people import find_people
from neurostorm_bids.group.report import format_report
from neurostorm_bids.group.sources import find_sources
from neurostorm_bids.group.tables import tabulate_people, tabulate_scores

PNG = "data:image/png;base64,"


def make_report(options):
    return format_report(summarise_group(options, collect_results(options), find_sources(options)))


def test_numbers_are_coloured_as_numbers_and_codes_as_names():
    assert make_colouring("age", ["20", None, "30", "41", "50"]).values == (20, None, 30, 41, 50)
    assert make_colouring("sex", ["1", "2", "1"]).values == ("1", "2", "1")


def test_rare_names_share_a_colour():
    cells = [name for place, name in enumerate("abcdefgh") for _ in range(9 - place)]
    values = make_colouring("site", cells).values
    assert set(values) == {"a", "b", "c", "d", "e", "others"}


def test_without_any_column_the_map_has_one_colour(study):
    study.add("sub-01_task-rest", embedding=[1.0])
    results = collect_results(study.options()).results
    (colouring,) = choose_colourings(results, study.options(), targets=(), roots=[study.source])
    assert set(colouring.values) == {""}


def test_people_with_a_fingerprint_are_found(filled):
    (embeddings,) = collect_results(filled.options()).embeddings
    found = find_people(embeddings, seed=0)
    assert found.outcome.apart == "session"
    assert found.outcome.scores["rank1"].value == 1


def test_people_with_one_run_are_not_looked_for_and_it_is_said(study):
    study.add("sub-01_task-rest", embedding=[1.0])
    study.add("sub-02_task-rest", embedding=[2.0])
    found = find_people(collect_results(study.options()).embeddings[0], seed=0)
    assert found.outcome is None
    assert "two or more people" in found.why_not


def test_the_report_shows_every_part_and_loads_nothing(filled):
    page = make_report(filled.options())
    for title in ("Prediction of age", "Prediction of sex", "Re-identification", "Quality of"):
        assert f"<h2>{title}" in page
    markup = re.sub(r"(?s)<script>.*?</script>", "", page)
    # age; sex, its confusion matrix; the map; the CMC curve; the outliers
    assert markup.count(PNG) == 6
    assert not re.search(r"(src|href)=\"(?!data:)", markup)
    assert str(filled.output.parent) not in page


def test_the_report_warns_of_few_people_and_of_training_participants(filled):
    page = make_report(filled.options())
    assert "5 participants were scored" in page
    assert "was not trained on these participants" in page


def test_what_a_stranger_wrote_is_shown_as_text(study):
    study.add("sub-01_task-rest", value=20.0, model="<script>alert(1)</script>")
    assert "<script>alert" not in make_report(study.options())


@pytest.mark.parametrize("n_people", [1, 2])
def test_the_report_of_hardly_anybody_is_a_report(study, n_people):
    for label in range(1, n_people + 1):
        study.add(f"sub-{label}_task-rest", embedding=[1.0, 2.0], value=20.0, fd=0.2)
        study.add(f"sub-{label}_task-rest", probabilities=(0.5, 0.5))
    assert "</html>" in make_report(study.options())


def test_damaged_results_are_listed_in_the_report(study):
    for label in ("01", "02"):
        folder = study.add(f"sub-{label}_task-rest", value=20.0)
    next(folder.glob("*.json")).write_text("{")
    page = make_report(study.options())
    assert "1 result cannot be used" in page
    assert "Results that cannot be used" in page


def test_scores_and_people_are_tables_with_a_row_per_measure(filled):
    options = filled.options()
    group = summarise_group(options, collect_results(options), find_sources(options))
    scores = format_table(tabulate_scores(group.assessments)).splitlines()
    people = format_table(tabulate_people(group.people)).splitlines()
    assert len(scores) == 1 + 5 + 5
    assert len(people) == 1 + 4
    assert tabulate_scores([]) == []
