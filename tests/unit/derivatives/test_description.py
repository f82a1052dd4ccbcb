"""dataset_description.json: who made the dataset, from what, and where that lies."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from neurostorm_bids import __version__
from neurostorm_bids.derivatives import description as room
from neurostorm_bids.derivatives.description import (
    describe_container,
    describe_dataset,
    link_dataset,
)
from neurostorm_bids.derivatives.texts import format_json
from neurostorm_bids.inputs import SourceDataset

OUT = Path("/data/derivatives/neurostorm")
FMRIPREP = Path("/data/derivatives/fmriprep")


@pytest.fixture(autouse=True)
def outside_of_containers(monkeypatch):
    for name in ("NEUROSTORM_CONTAINER", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        monkeypatch.delenv(name, raising=False)


def describe(*datasets, existing=None):
    return describe_dataset(existing or {}, output_dir=OUT, datasets=datasets)


def test_the_fields_that_bids_wants_are_there(make_dataset):
    description = describe(make_dataset(FMRIPREP))
    assert description["Name"]
    assert description["BIDSVersion"] == "1.10.1"
    assert description["DatasetType"] == "derivative"
    assert description["HowToAcknowledge"]
    assert len(description["Authors"]) > 1
    assert description["GeneratedBy"] == [
        {"Name": "neurostorm-bids", "Version": __version__},
        {"Name": "fMRIPrep", "Version": "23.2.1"},
    ]
    assert description["SourceDatasets"] == [{"URL": "../fmriprep"}]
    assert description["DatasetLinks"] == {"fmriprep": "../fmriprep"}
    assert "License" not in description


def test_the_home_of_the_code_comes_from_the_packages_metadata(make_dataset, monkeypatch):
    urls = ["Documentation, https://example.org/docs", "Source, https://example.org/Code"]
    monkeypatch.setattr(room, "metadata", lambda _: SimpleNamespace(get_all=lambda _: urls))
    ours = describe(make_dataset(FMRIPREP))["GeneratedBy"][0]
    assert ours["CodeURL"] == "https://example.org/Code"


def test_what_the_source_says_of_itself_is_handed_on(make_dataset):
    raw = {"URL": "https://doi.org/10.1/raw", "DOI": "10.1/raw"}
    description = describe(
        make_dataset(
            FMRIPREP,
            DatasetDOI="doi:10.1/prep",
            License="CC0",
            Authors=["A. Author"],
            SourceDatasets=[raw, {"URL": "https://doi.org/", "DOI": ""}],
        )
    )
    assert description["SourceDatasets"] == [{"URL": "../fmriprep", "DOI": "doi:10.1/prep"}, raw]
    assert description["License"] == "CC0"
    assert description["Authors"] == ["A. Author", "The neurostorm-bids developers"]


def test_an_old_description_names_its_program_too(make_dataset):
    old = {"Name": "fMRIPrep", "Version": "1.5.0"}
    description = describe(make_dataset(FMRIPREP, GeneratedBy=None, PipelineDescription=old))
    assert description["GeneratedBy"][1:] == [old]


@pytest.mark.parametrize("nonsense", [None, "x", ["x"], {"Name": "x"}, [{}], 3])
def test_a_source_that_describes_itself_badly_is_no_failure(make_dataset, nonsense):
    fields = ("GeneratedBy", "SourceDatasets", "Authors", "License", "DatasetDOI")
    description = describe(make_dataset(FMRIPREP, **dict.fromkeys(fields, nonsense)))
    assert description["GeneratedBy"][0]["Name"] == "neurostorm-bids"


def test_sources_with_different_licenses_leave_ours_open(make_dataset):
    datasets = [
        make_dataset(FMRIPREP, "one", License="CC0"),
        make_dataset(FMRIPREP, "two", License="PDDL"),
    ]
    assert "License" not in describe(*datasets)


def test_describing_twice_changes_nothing(make_dataset):
    dataset = make_dataset(FMRIPREP, License="CC0")
    once = describe(dataset)
    assert describe(dataset, existing=once) == once


def test_what_others_have_written_stays_and_our_version_is_renewed(make_dataset):
    existing = {
        "Name": "Our study",
        "Authors": ["B. Author"],
        "Funding": ["X"],
        "GeneratedBy": [{"Name": "neurostorm-bids", "Version": "0.0.1"}, {"Name": "script"}],
        "SourceDatasets": [{"URL": "../xcpd"}],
        "DatasetLinks": {"xcpd": "../xcpd"},
    }
    description = describe(make_dataset(FMRIPREP), existing=existing)
    assert description["Name"] == "Our study"
    assert description["Authors"] == ["B. Author"]
    assert description["Funding"] == ["X"]
    assert [(one["Name"], one.get("Version")) for one in description["GeneratedBy"]] == [
        ("neurostorm-bids", __version__),
        ("script", None),
        ("fMRIPrep", "23.2.1"),
    ]
    assert description["SourceDatasets"] == [{"URL": "../xcpd"}, {"URL": "../fmriprep"}]
    assert description["DatasetLinks"] == {"xcpd": "../xcpd", "fmriprep": "../fmriprep"}


@pytest.mark.parametrize(
    ("source", "link"),
    [
        ("/data/derivatives/fmriprep", "../fmriprep"),
        ("/data/derivatives/neurostorm/in", "in"),
        ("/data/my study/prep", "../../my%20study/prep"),
        ("/bids", "file:///bids"),
        ("/fm prep/x", "file:///fm%20prep/x"),
    ],
)
def test_links_are_relative_unless_only_the_root_is_shared(source, link):
    assert link_dataset(Path(source), OUT) == link


def test_a_link_leads_from_where_the_output_really_lies(tmp_path):
    (tmp_path / "disk" / "out").mkdir(parents=True)
    (tmp_path / "prep").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    link = link_dataset(tmp_path / "prep", tmp_path / "out")
    assert (tmp_path / "out" / link).samefile(tmp_path / "prep")


@pytest.mark.parametrize(
    ("environ", "container"),
    [
        ({}, None),
        (
            {"NEUROSTORM_CONTAINER": "x/neurostorm:0.1.0"},
            {
                "Type": "docker",
                "Tag": "x/neurostorm:0.1.0",
                "URI": "docker://x/neurostorm:0.1.0",
            },
        ),
        (
            {"NEUROSTORM_CONTAINER": "x/n:1", "APPTAINER_CONTAINER": "/home/jdoe/n.sif"},
            {"Type": "apptainer", "Tag": "x/n:1", "URI": "docker://x/n:1"},
        ),
        (
            {"SINGULARITY_CONTAINER": "/home/jdoe/n.sif"},
            {"Type": "apptainer", "Tag": "n.sif"},
        ),
    ],
)
def test_a_container_is_named_without_its_place(environ, container):
    assert describe_container(environ) == container


@pytest.mark.parametrize(
    "description",
    [
        {"GeneratedBy": [{"Name": "x", "Version": float("nan")}]},
        {"Authors": ["\ud800"]},
        {"License": "\ud800"},
        {"SourceDatasets": [{"URL": float("inf")}]},
    ],
)
def test_what_json_cannot_hold_is_not_passed_on(description, tmp_path):
    source = SourceDataset(name="a", path=tmp_path, description=description)
    described = describe_dataset({}, output_dir=tmp_path / "out", datasets=[source])
    assert json.loads(format_json(described).encode()) == described


@pytest.mark.parametrize("key", ["SourceDatasets", "DatasetLinks"])
@pytest.mark.parametrize("value", [1, None, [1], {"b": "c"}])
def test_odd_values_in_the_description_that_is_there_do_no_harm(key, value, tmp_path):
    source = SourceDataset(name="a", path=tmp_path)
    described = describe_dataset({key: value}, output_dir=tmp_path / "out", datasets=[source])
    assert "a" in described["DatasetLinks"]
