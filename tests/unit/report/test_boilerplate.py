from __future__ import annotations

import json
import re

import pytest

from neurostorm_bids import __version__
from neurostorm_bids.derivatives import OutputNames
from neurostorm_bids.errors import SelectionError
from neurostorm_bids.report.boilerplate import write_boilerplate
from neurostorm_bids.report.methods import tell_methods
from neurostorm_bids.report.procedures import Procedure
from neurostorm_bids.report.references import read_references

from .conftest import AGE, make_model

ENDS = ("md", "html", "bib", "json")


def read_all(output):
    return {end: (output / "logs" / f"CITATION.{end}").read_text() for end in ENDS}


def test_the_text_names_what_was_really_done(output, work_on):
    work_on()
    write_boilerplate(output)
    text = read_all(output)["md"]
    assert f"neurostorm-bids {__version__}" in text
    assert "fMRIPrep 23.2.1 (Esteban et al., 2019)" in text
    assert "MNI152NLin6Asym (Evans et al., 2012)" in text
    assert "ab" * 32 in text
    assert "predicts sex (F, M)" in text
    assert "PyTorch" in text
    assert "occlusion" not in text
    assert "XCP-D" not in text


def test_every_citation_of_the_text_is_in_the_list(output, work_on):
    work_on()
    write_boilerplate(output)
    texts = read_all(output)
    body, listed = texts["md"].split("## References")
    by_words = {one.cite: one for one in read_references().values()}
    cited = {words for words in by_words if words in body}
    assert len(cited) >= 10
    for words, one in by_words.items():
        assert (words in cited) == (one.doi in listed)
        assert (words in cited) == (f"@article{{{one.key}," in texts["bib"])


def test_participants_told_of_one_by_one_and_at_once_make_the_same_text(output, work_on, make_run):
    labels = ("01", "02", "03")
    for label in labels:
        work_on(make_run(f"sub-{label}_task-rest_space-MNI152NLin6Asym_desc-preproc"))
        write_boilerplate(output, [label])
    one_by_one = read_all(output)
    write_boilerplate(output)
    assert read_all(output) == one_by_one


def test_a_second_model_is_told_of_besides_the_first(output, work_on, make_run):
    work_on()
    write_boilerplate(output, ["01"])
    names = OutputNames(scan="scanAge", clip="clipAge", target="age")
    run = make_run("sub-02_task-rest_space-MNI152NLin2009cAsym_desc-preproc")
    work_on(run, target=AGE, model=make_model("elder", AGE, "cd" * 32), names=names)
    write_boilerplate(output, ["02"])
    text = read_all(output)["md"]
    assert "The model base" in text
    assert "The model elder" in text
    assert "predicts age, in years" in text
    assert "Fonov" in text


def test_a_damaged_record_is_written_anew(output, work_on):
    work_on()
    write_boilerplate(output)
    good = read_all(output)
    for content in ("{", "[]", '{"Procedures": [{}]}', '{"Procedures": 3}'):
        (output / "logs" / "CITATION.json").write_text(content)
        write_boilerplate(output, ["01"])
        assert read_all(output) == good


def test_a_record_comes_back_from_json_as_it_was(output, work_on):
    work_on()
    write_boilerplate(output)
    content = json.loads(read_all(output)["json"])["Procedures"]
    assert [Procedure.from_dict(one).to_dict() for one in content] == [
        Procedure.from_dict(json.loads(json.dumps(one))).to_dict() for one in content
    ]
    again = [Procedure.from_dict(one) for one in content]
    assert tell_methods(again, []).paragraphs[-1] in read_all(output)["md"]


def test_nothing_done_is_nothing_told(output):
    output.mkdir()
    with pytest.raises(SelectionError, match="no results"):
        write_boilerplate(output)


def test_names_of_strangers_become_no_markup(output, work_on):
    work_on(model=make_model("<b>bold</b>"))
    write_boilerplate(output)
    assert "<b>" not in read_all(output)["html"]


def test_references_are_whole():
    for one in read_references().values():
        assert re.fullmatch(r"10\.\d{4,}/\S+", one.doi), one
        assert one.authors
        assert one.title
        assert re.search(r"author = \{[^{}]+, [A-Z]+", one.format_bibtex()), one
