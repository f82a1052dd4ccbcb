"""Models by path, catalogue name and address; no test reaches the network."""

from __future__ import annotations

from dataclasses import replace

import huggingface_hub
import pytest

from neurostorm_bids.errors import DataError, MissingFileError, UsageError
from neurostorm_bids.model import hub
from neurostorm_bids.model.hub import (
    HubAddress,
    find_entry,
    find_kept,
    locate_model,
    read_catalogue,
)


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """Answer every download with one small file; return what was asked for."""
    asked = []

    def hf_hub_download(repo_id, filename, *, revision):
        asked.append((repo_id, filename, revision))
        (tmp_path / "blob").write_bytes(b"weights")
        return str(tmp_path / "blob")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    return asked


@pytest.fixture
def offline(monkeypatch):
    def hf_hub_download(*_args, **_kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot reach the Hub\nmore")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (
            "hf://owner/repo/a.ckpt@v1",
            HubAddress(repository="owner/repo", file="a.ckpt", revision="v1"),
        ),
        (
            "hf://o-1/r.2/deep/er/a_b.ckpt",
            HubAddress(repository="o-1/r.2", file="deep/er/a_b.ckpt", revision="main"),
        ),
    ],
)
def test_an_address_is_read(text, address):
    assert HubAddress.parse(text) == address
    assert HubAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://owner/repo",
        "hf://owner/repo/",
        "hf://owner/repo/../a",
        "hf://owner/repo/.a",
        "hf://owner/repo//a",
        "hf://owner/repo/a@",
        "hf://owner/repo/a@b@c",
        "hf://owner/repo/a b",
        "hf://owner/repo/a;ls",
        "hf://-owner/repo/a",
        "hf://owner/repo/a@--flag",
        "https://huggingface.co/owner/repo/a",
        "hf://owner/repo/a\n",
    ],
)
def test_anything_else_is_not_an_address(text):
    with pytest.raises(UsageError, match="not the address of a file on the Hub"):
        HubAddress.parse(text)


def test_the_catalogue_is_sound():
    catalogue = read_catalogue()
    assert len(catalogue) == 7
    assert len({entry.address for entry in catalogue.values()}) == len(catalogue)
    age = catalogue["neurostorm-hcpya-age"].target
    assert (age.mean, age.sd, age.unit) == (28.7593, 3.6815, "years")
    assert all(entry.licence == "MIT" for entry in catalogue.values())


def test_a_path_is_taken_as_it_is(tmp_path, downloads):
    (tmp_path / "a.ckpt").touch()
    assert locate_model(tmp_path / "a.ckpt") == tmp_path / "a.ckpt"
    assert locate_model(str(tmp_path / "a.ckpt")) == tmp_path / "a.ckpt"
    assert not downloads


def test_a_name_in_the_catalogue_is_fetched(downloads, tmp_path):
    assert locate_model("neurostorm-hcpya-sex") == tmp_path / "blob"
    assert downloads == [("zxcvb20001/NeuroSTORM", "task1/neurostorm_hcpya_sex.ckpt", "main")]


def test_an_address_is_fetched_at_its_revision(downloads, tmp_path):
    assert locate_model("hf://owner/repo/sub/a.ckpt@abc") == tmp_path / "blob"
    assert downloads == [("owner/repo", "sub/a.ckpt", "abc")]


def test_the_catalogue_knows_names_and_addresses_but_no_paths(tmp_path, monkeypatch):
    entry = read_catalogue()["neurostorm-hcpya-age"]
    assert find_entry(entry.name) == entry
    assert find_entry(str(entry.address)) == entry
    assert find_entry(str(replace(entry.address, revision="other"))) is None
    monkeypatch.chdir(tmp_path)
    for name in (entry.name, "neurostorm_hcpya_age.ckpt"):
        (tmp_path / name).touch()
        assert find_entry(name) is None
        assert find_entry(tmp_path / name) is None


def test_a_path_goes_before_a_name(tmp_path, monkeypatch, downloads):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neurostorm-hcpya-age").mkdir()
    assert locate_model("neurostorm-hcpya-age").resolve() == tmp_path / "neurostorm-hcpya-age"
    assert not downloads


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "command"),
    [
        (
            "hf://owner/repo/sub/a.ckpt@abc",
            "hf download owner/repo sub/a.ckpt --revision abc",
        ),
        (
            "neurostorm-hcpya-sex",
            "hf download zxcvb20001/NeuroSTORM task1/neurostorm_hcpya_sex.ckpt --revision main",
        ),
    ],
)
def test_offline_and_not_cached_ends_with_the_command_that_fetches_it(name, command):
    with pytest.raises(MissingFileError, match="cannot reach the Hub") as error:
        locate_model(name)
    assert error.value.exit_status == 66
    assert str(error.value).endswith(command)


@pytest.mark.usefixtures("offline")
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("image", ["neurostorm-bids:1-cpu", None])
def test_in_a_container_it_says_how_a_model_gets_into_one(monkeypatch, image):
    monkeypatch.delenv("NEUROSTORM_CONTAINER", raising=False)
    if image:
        monkeypatch.setenv("NEUROSTORM_CONTAINER", image)
    with pytest.raises(MissingFileError) as error:
        locate_model("neurostorm-hcpya-sex")
    assert ("mount the file" in str(error.value)) == (image is not None)


def test_what_is_not_there_is_not_guessed():
    with pytest.raises(MissingFileError, match=r"No model 'missing\.ckpt'.*neurostorm-mae-5ds"):
        locate_model("missing.ckpt")


@pytest.mark.usefixtures("downloads")
@pytest.mark.parametrize(
    ("known", "message"),
    [({"sha256": "0" * 64}, "expected SHA-256 000"), ({"size_bytes": 8}, "expected a file of 8")],
)
def test_a_file_that_is_not_the_known_one_is_refused(monkeypatch, known, message):
    entry = replace(read_catalogue()["neurostorm-hcpya-sex"], **known)
    monkeypatch.setattr(hub, "read_catalogue", lambda: {entry.name: entry})
    with pytest.raises(DataError, match=message):
        locate_model(entry.name)


@pytest.mark.usefixtures("downloads")
def test_a_file_that_is_the_known_one_is_taken(monkeypatch, tmp_path):
    (tmp_path / "blob").write_bytes(b"weights")
    sha256 = hub.digest_file(tmp_path / "blob")
    entry = replace(read_catalogue()["neurostorm-hcpya-sex"], sha256=sha256, size_bytes=7)
    monkeypatch.setattr(hub, "read_catalogue", lambda: {entry.name: entry})
    assert locate_model(entry.name) == tmp_path / "blob"


@pytest.mark.usefixtures("downloads")
@pytest.mark.parametrize("name", ["neurostorm-hcpya-sex", "hf://owner/repo/a.ckpt"])
def test_a_file_that_changed_since_its_first_use_is_refused(monkeypatch, tmp_path, name):
    assert locate_model(name) == locate_model(name) == tmp_path / "blob"
    (note,) = (tmp_path / "hf" / hub.NOTES).iterdir()
    (tmp_path / "other").write_bytes(b"Weights")
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "other")
    )
    with pytest.raises(DataError, match="not the file that it was when it was first used"):
        locate_model(name)
    note.unlink()
    assert locate_model(name) == tmp_path / "other"


@pytest.mark.usefixtures("downloads")
def test_a_cache_that_cannot_be_written_or_a_damaged_note_stops_nobody(tmp_path):
    assert locate_model("hf://owner/repo/a.ckpt") == tmp_path / "blob"
    (note,) = (tmp_path / "hf" / hub.NOTES).iterdir()
    note.write_text("[]")
    assert locate_model("hf://owner/repo/a.ckpt") == tmp_path / "blob"
    note.unlink()
    note.parent.rmdir()
    note.parent.touch()
    assert locate_model("hf://owner/repo/a.ckpt") == tmp_path / "blob"


def test_a_model_of_the_folder_of_models_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    (tmp_path / "file.ckpt").touch()
    monkeypatch.setenv("NEUROSTORM_MODELS", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    assert locate_model("kept") == tmp_path / "kept"
    assert locate_model("file") == tmp_path / "file.ckpt"


def test_a_kept_file_of_a_name_of_the_catalogue_must_be_the_known_one(tmp_path, monkeypatch):
    entry = replace(read_catalogue()["neurostorm-hcpya-sex"], sha256="0" * 64)
    monkeypatch.setattr(hub, "read_catalogue", lambda: {entry.name: entry})
    monkeypatch.setenv("NEUROSTORM_MODELS", str(tmp_path))
    (tmp_path / f"{entry.name}.ckpt").write_bytes(b"others")
    with pytest.raises(DataError, match="expected SHA-256 000"):
        locate_model(entry.name)


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/b", ".."])
def test_no_name_leaves_the_folder_of_models(tmp_path, monkeypatch, name):
    (tmp_path / "models").mkdir()
    (tmp_path / "secret").mkdir()
    monkeypatch.setenv("NEUROSTORM_MODELS", str(tmp_path / "models"))
    assert find_kept(name) is None
