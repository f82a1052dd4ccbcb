"""Strangers' models, arrays and stored runs: read as data, strictly, and never run."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids.demo_data import write_encoder
from neurostorm_bids.grid.normalise import find_statistics
from neurostorm_bids.grid.resample import find_clock
from neurostorm_bids.grid.series import Series
from neurostorm_bids.grid.spec import GridSpec
from neurostorm_bids.grid.store import StoredRun, write_run
from neurostorm_bids.model.digest import digest_file
from neurostorm_bids.pretrained import load_model, open_checkpoint
from neurostorm_bids.retrieval.stimuli import read_image_embeddings
from neurostorm_bids.train.files import read_table, read_weights
from tests.robustness.corpus import (
    cases,
    changed,
    check_text,
    damage,
    json_bytes,
    obeying,
    odd_texts,
    odd_values,
    tsv_bytes,
    write_json_text,
)

SHAPE = (4, 5, 6)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = write_encoder(tmp_path_factory.mktemp("encoder"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def split_safetensors(content):
    """Return the header of a safetensors file and the bytes behind it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


@st.composite
def safetensors_bytes(draw, content, *, metadata=None):
    """Return a safetensors file whose header was changed, or whose bytes were damaged."""
    header, values = split_safetensors(content)
    kind = draw(st.sampled_from(["damaged", "header", "header", "entry", "length", "metadata"]))
    if kind == "damaged":
        return draw(damage(content))
    if kind == "header":
        header = draw(changed(header))
    if kind == "entry":
        name = draw(st.sampled_from(list(header)))
        header[name] = draw(
            changed(header[name])
            | st.fixed_dictionaries(
                {
                    "dtype": st.sampled_from(["F32", "F64", "U8", "U16", "I64", "BOOL", "F8_E4M3"]),
                    "shape": st.lists(st.sampled_from([0, 1, 2, 10**6, 2**40]), max_size=5),
                    "data_offsets": st.sampled_from([[0, 0], [0, 8], [8, 0], [0, 2**60], [-1, 4]]),
                }
            )
        )
    if kind == "metadata" and metadata is not None:
        facts = json.loads(header["__metadata__"][metadata])
        header["__metadata__"][metadata] = draw(json_bytes(facts)).decode("utf-8", errors="replace")
    text = write_json_text(header).encode()
    length = len(text)
    if kind == "length":
        length = draw(st.sampled_from([0, 1, 2**31, 2**40, 2**63, 2**64 - 1]))
    return struct.pack("<Q", length) + text + values


@cases(0.05, short=12)
@given(data=st.data())
def test_model_folders(model_folder, data):
    config = json.loads(model_folder["config.json"])
    weights = model_folder["model.safetensors"]
    with obeying("model folders") as (folder, begin):
        is_config = data.draw(st.booleans())
        if not is_config:
            weights = data.draw(safetensors_bytes(weights))
        path = folder / "model"
        path.mkdir()
        (path / "model.safetensors").write_bytes(weights)
        config["weights"] = {"sha256": digest_file(path / "model.safetensors")}
        if is_config:
            part = data.draw(st.sampled_from(["model", "grid", "provenance", None, None]))
            if part is None:
                text = data.draw(
                    json_bytes(config, extra=["calibration", "mask", "head", "target"])
                )
            else:
                config[part] = data.draw(changed(config[part]))
                text = write_json_text(config).encode()
        else:
            text = write_json_text(config).encode()
        (path / "config.json").write_bytes(text)
        begin()
        model = load_model(path)
        for note in model.provenance.notes:
            check_text(note)


@pytest.fixture(scope="module")
def published(golden):
    """The members of a published checkpoint."""
    path = golden / "official_sex.ckpt"
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    return path.read_bytes(), members


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


OPCODES = [opcode.code.encode("latin-1") for opcode in __import__("pickletools").opcodes]


@st.composite
def hostile_pickles(draw):  # noqa: PLR0911 - a return for each kind
    """Return pickles that call, promise much, or repeat themselves without end."""
    kind = draw(st.sampled_from(["call", "promise", "laughs", "opcodes", "values"]))
    if kind == "call":
        function = draw(st.sampled_from([print, open, eval, __import__, getattr, bytearray]))
        return pickle.dumps(
            {"state_dict": Call(function, draw(odd_texts.filter(lambda t: "\ud800" not in t)))}
        )
    if kind == "promise":
        length = draw(st.sampled_from([2**20, 2**33, 2**36, 2**40, 2**62]))
        code = draw(
            st.sampled_from([pickle.BYTEARRAY8, pickle.BINBYTES8, pickle.BINUNICODE8, pickle.FRAME])
        )
        return b"\x80\x05" + code + struct.pack("<Q", length) + b"x."
    if kind == "laughs":
        value = ["ha"]
        for _ in range(draw(st.sampled_from([5, 30, 60]))):
            value = [value] * 2 if draw(st.booleans()) else (value, value)
        place = draw(st.sampled_from(["state_dict", "key", "hyper_parameters", "other", "whole"]))
        if place == "key":
            return pickle.dumps({"state_dict": {"a": value}})
        if place == "whole":
            return pickle.dumps(value)
        return pickle.dumps({place: value})
    if kind == "values":
        content = {
            "state_dict": {},
            "hyper_parameters": draw(st.dictionaries(st.sampled_from(HYPER), odd_values)),
        }
        return pickle.dumps(content, protocol=2) if "\\ud800" not in repr(content) else b"."
    parts = st.sampled_from(OPCODES) | st.binary(max_size=6)
    return b"\x80\x02" + b"".join(draw(st.lists(parts, max_size=20))) + b"."


HYPER = (
    *("img_size", "in_chans", "embed_dim", "window_size", "first_window_size", "patch_size"),
    *("depths", "c_multiplier", "last_layer_full_MSA", "task_name", "downstream_task_type"),
)


@cases(0.06, short=20)
@given(data=st.data())
def test_published_checkpoints(published, data):
    content, members = published
    with obeying("checkpoints") as (folder, begin):
        path = folder / "model.ckpt"
        kind = data.draw(st.sampled_from(["bytes", "member", "pickle", "drop"]))
        if kind == "bytes":
            path.write_bytes(data.draw(damage(content)))
        else:
            changed_members = dict(members)
            (name,) = (name for name in members if name.endswith("data.pkl"))
            if kind == "pickle":
                changed_members[name] = data.draw(hostile_pickles())
            elif kind == "drop":
                changed_members.pop(data.draw(st.sampled_from(list(members))))
            else:
                other = data.draw(st.sampled_from([name] * 3 + list(members)))
                changed_members[other] = data.draw(damage(members[other]))
            with zipfile.ZipFile(path, "w") as archive:
                for member, values in changed_members.items():
                    archive.writestr(member, values)
        begin()
        checkpoint = open_checkpoint(path)
        for note in checkpoint.provenance.notes:
            check_text(note)


@pytest.fixture(scope="module")
def training_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "last.ckpt"
    weights = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
    torch.save(
        {
            "model": weights,
            "optimizer": {},
            "average": {},
            "progress": {"step": 3},
            "numbers": {"seed": 1},
        },
        path,
    )
    return path.read_bytes()


@cases(0.03, short=12)
@given(data=st.data())
def test_checkpoints_of_a_training(training_checkpoint, data):
    with obeying("training checkpoints") as (folder, begin):
        path = folder / "last.ckpt"
        if data.draw(st.booleans()):
            path.write_bytes(data.draw(damage(training_checkpoint)))
        else:
            values = data.draw(odd_values | changed({"model": {}, "average": {}, "numbers": {}}))
            torch.save(values, path)
        begin()
        read_weights(path)


@cases(0.02, short=12)
@given(content=tsv_bytes([["step,loss"], ["1,0.5"], ["2,0.25"], ["3,0.1"]]))
def test_tables_of_losses(content):
    with obeying("tables of losses") as (folder, begin):
        (folder / "training.csv").write_bytes(content)
        begin()
        for row in read_table(folder / "training.csv"):
            assert isinstance(row["step"], int)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    rng = np.random.default_rng(0)
    spec = GridSpec.published(SHAPE)
    mask = rng.random(SHAPE) < 0.5
    frames = (1000 + rng.standard_normal((8, mask.sum()))).astype(np.float32)
    clock = find_clock(8, source_repetition_time_s=2.0, repetition_time_s=0.8)
    series = Series(
        spec=spec,
        brain_mask=mask,
        frames=frames,
        clock=clock,
        statistics=find_statistics(frames, clock, clip_negatives=False, name="a test"),
        source_affine=np.eye(4),
        source_repetition_time_s=2.0,
        brain_coverage=1.0,
        steps=("Made up.",),
        warnings=(),
    )
    path = tmp_path_factory.mktemp("store") / "run.safetensors"
    write_run(series, path, source={"a": 1})
    return path.read_bytes()


@cases(0.06, short=20)
@given(data=st.data())
def test_stored_runs(stored, data):
    with obeying("stored runs") as (folder, begin), np.errstate(all="ignore"):
        path = folder / "run.safetensors"
        path.write_bytes(data.draw(safetensors_bytes(stored, metadata="run")))
        begin()
        run = StoredRun.open(path)
        run.read_clip(0, 4)


@st.composite
def npy_bytes(draw, array):
    """Return an array of NumPy whose header or bytes were changed."""
    stream = io.BytesIO()
    np.save(stream, array)
    content = stream.getvalue()
    if draw(st.booleans()):
        return draw(damage(content))
    descr = draw(
        st.sampled_from(
            ["<f8", "<f4", "<U5", "|O", "<c16", "|V8", "<M8[s]", "<f99", "(2,)<f4", "<U99999999"]
        )
    )
    shape = draw(
        st.sampled_from(
            [(3, 2), (3,), (2**40, 2), (-3, -2), (0, 5), (3, 2, 1), (10**30,), (), "x", (True, 2)]
        )
    )
    header = draw(
        st.sampled_from(
            [
                f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}}}",
                f"{{'descr': {descr!r}, 'fortran_order': 1, 'shape': {shape!r}, 'x': 1}}",
                "(" * 3000,
                "__import__('os').system('true')",
                "[" * 200 + "]" * 200,
                "{",
            ]
        )
    )
    text = header.encode() + b"\n"
    version = draw(st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"]))
    length = (
        struct.pack("<H", len(text)) if version == b"\x01\x00" else struct.pack("<I", len(text))
    )
    return b"\x93NUMPY" + version + length + text + array.tobytes()


EMBEDDINGS = np.arange(6.0).reshape(3, 2)
NAMES = np.array(["a.png", "b.png", "c.png"])


@cases(0.05, short=20)
@given(data=st.data())
def test_embeddings_of_images(data):
    with obeying("stimulus features") as (folder, begin), np.errstate(all="ignore"):
        kind = data.draw(st.sampled_from([".npz", ".npy", ".tsv"]))
        path = folder / f"images{kind}"
        if kind == ".npz":
            stream = io.BytesIO()
            method = data.draw(
                st.sampled_from(
                    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2]
                )
            )
            with zipfile.ZipFile(stream, "w", method) as archive:
                archive.writestr("embedding.npy", data.draw(npy_bytes(EMBEDDINGS)))
                archive.writestr("stim_file.npy", data.draw(npy_bytes(NAMES)))
            content = stream.getvalue()
            path.write_bytes(data.draw(damage(content)) if data.draw(st.booleans()) else content)
        else:
            rows = [
                ["stim_file", "x", "y"],
                ["a.png", "0", "1"],
                ["b.png", "2", "3"],
                ["c.png", "4", "5"],
            ]
            (folder / "images.tsv").write_bytes(data.draw(tsv_bytes(rows)))
            if kind == ".npy":
                path.write_bytes(data.draw(npy_bytes(EMBEDDINGS)))
        begin()
        table = read_image_embeddings(path)
        assert np.isfinite(table.to_numpy()).all()
