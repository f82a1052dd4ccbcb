"""Atlases by name: which file a name means, and what to do where it cannot be had."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from nilearn import datasets
from templateflow import api

from neurostorm_bids.errors import MissingFileError, UsageError
from neurostorm_bids.grid.atlas_sources import locate_atlas

SPACE = "MNI152NLin6Asym"
FILES = [
    *(
        f"tpl-{SPACE}_res-0{res}_atlas-Schaefer2018_desc-{desc}_dseg.nii.gz"
        for res in (1, 2)
        for desc in ("1000Parcels7Networks", "100Parcels17Networks", "100Parcels7Networks")
    ),
    f"tpl-{SPACE}_res-01_atlas-HOCPA_desc-th0_dseg.nii.gz",
    f"tpl-{SPACE}_res-01_atlas-HOCPA_desc-th25_dseg.nii.gz",
    f"tpl-{SPACE}_res-01_atlas-HOCPA_probseg.nii.gz",
    f"tpl-{SPACE}_res-02_atlas-DiFuMo_desc-64dimensions_probseg.nii.gz",
    f"tpl-{SPACE}_res-02_atlas-HCP_dseg.nii.gz",
    f"tpl-{SPACE}_res-02_T1w.nii.gz",
]


@pytest.fixture
def archive(monkeypatch):
    """Put a small archive in TemplateFlow's place; return the list of what is fetched from it."""
    fetched = []

    def ls(space, atlas=None, **_):
        wanted = f"_atlas-{atlas}_" if atlas else ""
        return [Path(file) for file in FILES if f"tpl-{space}_" in file and wanted in file]

    def get(space, **query):
        fetched.append({"space": space, **query})
        return Path("fetched.nii.gz")

    monkeypatch.setattr(api, "ls", ls)
    monkeypatch.setattr(api, "get", get)
    return fetched


def raise_error(*_, **__):
    raise ConnectionError("there is no network")


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("Schaefer2018:100", {"desc": "100Parcels7Networks", "resolution": 2, "suffix": "dseg"}),
        ("Schaefer2018:100Parcels17", {"desc": "100Parcels17Networks", "resolution": 2}),
        ("Schaefer2018:1000", {"desc": "1000Parcels7Networks"}),
        ("HOCPA:th25", {"desc": "th25", "resolution": 1, "suffix": "dseg"}),
        ("DiFuMo:64", {"desc": "64dimensions", "suffix": "probseg"}),
        ("HCP", {"desc": None, "suffix": "dseg"}),
    ],
)
def test_a_name_means_one_file_of_templateflow(archive, name, query):
    source = locate_atlas(name, SPACE)
    assert (source.name, source.path, source.space) == (name, Path("fetched.nii.gz"), SPACE)
    [found] = archive
    assert found["atlas"] == name.partition(":")[0]
    assert query.items() <= found.items()


def test_templateflow_itself_knows_the_file_of_a_name(monkeypatch):
    monkeypatch.setattr(api, "get", lambda space, **query: api.ls(space, **query)[0])
    source = locate_atlas("Schaefer2018:200", SPACE)
    assert source.path.name == (
        f"tpl-{SPACE}_res-02_atlas-Schaefer2018_desc-200Parcels7Networks_dseg.nii.gz"
    )


@pytest.mark.usefixtures("archive")
def test_an_unknown_atlas_is_answered_with_those_there_are():
    with pytest.raises(UsageError, match=r"AAL, AAL3, .* TemplateFlow has DiFuMo, HCP, HOCPA, Sch"):
        locate_atlas("Brodmann", SPACE)


@pytest.mark.usefixtures("archive")
def test_a_space_without_atlases_is_said_to_have_none():
    with pytest.raises(UsageError, match=r"TemplateFlow has none\."):
        locate_atlas("Schaefer2018:100", "MNI305")


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize("name", ["HOCPA", "HOCPA:", "HOCPA:50"])
def test_a_variant_that_is_not_one_is_answered_with_those_there_are(name):
    with pytest.raises(UsageError, match="variants of HOCPA, HOCPA:th0, HOCPA:th25; found"):
        locate_atlas(name, SPACE)


@pytest.mark.usefixtures("archive")
def test_without_network_the_command_that_fetches_an_atlas_is_told(monkeypatch):
    monkeypatch.setattr(api, "get", raise_error)
    with pytest.raises(MissingFileError) as caught:
        locate_atlas("Schaefer2018:100", SPACE)
    assert (
        "python -c \"from templateflow.api import get; get('MNI152NLin6Asym', "
        "atlas='Schaefer2018', desc='100Parcels7Networks', resolution=2, suffix='dseg', "
        "extension='.nii.gz')\"\n"
    ) in str(caught.value)
    assert caught.value.exit_status == 66


def test_without_network_the_command_that_fetches_aal_is_told(monkeypatch):
    monkeypatch.setattr(datasets, "fetch_atlas_aal", raise_error)
    with pytest.raises(MissingFileError, match=r"fetch_atlas_aal\('3v2'\)\"\n"):
        locate_atlas("AAL3", SPACE)


def test_aal_brings_its_names_and_its_space(monkeypatch):
    def fetch(version, verbose):
        assert (version, verbose) == ("3v2", 0)
        labels = ["Background", "Precentral_L", "Precentral_R"]
        return SimpleNamespace(maps="AAL3v1.nii", labels=labels, indices=["0", "1", "2"])

    monkeypatch.setattr(datasets, "fetch_atlas_aal", fetch)
    source = locate_atlas("AAL3", SPACE)
    assert source.path == Path("AAL3v1.nii")
    assert source.space == "MNIColin27"
    assert source.rows == [(0, "Background"), (1, "Precentral_L"), (2, "Precentral_R")]


@pytest.mark.parametrize(
    ("path", "name", "space"),
    [
        ("AAL3.nii", "AAL3", None),
        ("some/where", "where", None),
        (Path("AAL3"), "AAL3", None),
        ("tpl-MNI305_atlas-X_dseg.nii.gz", "tpl-MNI305_atlas-X_dseg", "MNI305"),
        ("atlas-X_space-MNI305_dseg.nii.gz", "atlas-X_space-MNI305_dseg", "MNI305"),
    ],
)
def test_a_path_is_taken_as_it_is(path, name, space):
    assert locate_atlas(path, SPACE) == (name, Path(path), space, None)
