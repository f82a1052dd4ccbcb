"""Files of torch.save are read as data: what stands in them is never run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from neurostorm_bids.errors import DataError
from neurostorm_bids.model import torchfile
from neurostorm_bids.model.published import read_published
from neurostorm_bids.model.torchfile import TorchFile
from neurostorm_bids.model.unpickling import Inert, InertUnpickler, StoredTensor


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Settings(dict):
    """A dict with a class of its own, as Lightning has for hyper-parameters."""


def write_zip(path, pickled, *, members=(), compression=zipfile.ZIP_STORED):
    """Write an archive as torch.save lays it out."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for name, content in members:
            archive.writestr(f"archive/{name}", content)
    return path


def pickle_tensor(*, n_elements=6, offset=0, shape=(2, 3), stride=(3, 1), kind="FloatStorage"):
    """Pickle the description of a tensor, with whatever sizes."""

    class Storage:
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Storage):
                return ("storage", getattr(torch, kind), "0", "cpu", n_elements)
            return None

    stream = io.BytesIO()
    arguments = (Storage(), offset, shape, stride, False, OrderedDict())
    Pickler(stream, protocol=2).dump(Call(torch._utils._rebuild_tensor_v2, *arguments))
    return stream.getvalue()


def all_tensors(value):
    if isinstance(value, StoredTensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in all_tensors(item)]
    return []


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_come_back_as_torch_loads_them(tmp_path, dtype, protocol):
    torch.manual_seed(0)
    big = torch.randn(5, 7).to(dtype)
    saved = {
        "whole": big,
        "view": big[1:4, 2:],
        "transposed": big.T,
        "scalar": big[0, 0],
        "parameter": torch.nn.Parameter(big.clone()),
        "ordered": OrderedDict(inside=big * 2),
    }
    torch.save(saved, tmp_path / "a.ckpt", pickle_protocol=protocol)
    expected = torch.load(tmp_path / "a.ckpt", weights_only=protocol == 2)
    with TorchFile(tmp_path / "a.ckpt") as file:
        found = [file.read_tensor(stored) for stored in all_tensors(file.contents)]
    wanted = [*list(expected.values())[:-1], expected["ordered"]["inside"]]
    for value, other in zip(found, wanted, strict=True):
        assert value.dtype is torch.float32
        assert value.is_contiguous()
        assert torch.equal(value, other.detach().float())


def test_a_tensor_does_not_share_memory_with_another(tmp_path):
    base = torch.arange(6.0)
    torch.save({"a": base, "b": base[2:]}, tmp_path / "a.ckpt")
    with TorchFile(tmp_path / "a.ckpt") as file:
        a, b = (file.read_tensor(stored) for stored in all_tensors(file.contents))
    a.zero_()
    assert b.tolist() == [2, 3, 4, 5]


def test_plain_values_come_back_as_they_were(tmp_path):
    saved = {"a": 1, "b": [1.5, None, "text"], "c": (True,), 4: {"d": -(2**70)}}
    torch.save(saved, tmp_path / "a.ckpt")
    with TorchFile(tmp_path / "a.ckpt") as file:
        assert file.contents == saved


def test_dicts_of_other_classes_keep_their_items(tmp_path):
    saved = {
        "settings": Settings(depth=3),
        "namespace": SimpleNamespace(width=5),
        "ordered": OrderedDict(size=7),
    }
    saved["ordered"]._metadata = {"version": 1}
    torch.save(saved, tmp_path / "a.ckpt")
    with TorchFile(tmp_path / "a.ckpt") as file:
        contents = file.contents
    assert contents["settings"]["depth"] == 3
    assert contents["namespace"]["width"] == 5
    assert contents["ordered"] == {"size": 7}


def test_objects_of_any_class_are_passed_over(tmp_path):
    saved = {
        "path": tmp_path,
        "array": np.arange(3),
        "number": np.float64(2.5),
        "set": {1, 2},
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "function": os.getcwd,
        "class": SimpleNamespace,
        "error": ValueError("no"),
        "after": "still read",
    }
    torch.save(saved, tmp_path / "a.ckpt")
    with TorchFile(tmp_path / "a.ckpt") as file:
        contents = file.contents
    assert contents.keys() == saved.keys()
    assert contents["after"] == "still read"
    assert isinstance(contents["number"], Inert)


def test_classes_that_are_not_installed_are_passed_over(tmp_path):
    pickled = pickle.dumps({"a": SimpleNamespace(x=1), "b": 2}, protocol=2)
    missing = pickled.replace(b"ctypes\nSimpleNamespace\n", b"cnowhere.to.be\nFound\n")
    assert missing != pickled
    with TorchFile(write_zip(tmp_path / "a.ckpt", missing)) as file:
        assert file.contents == {"a": {"x": 1}, "b": 2}


@pytest.mark.parametrize("where", ["alone", "item", "key", "deep", "state", "called again"])
@pytest.mark.parametrize("name", ["system", "open", "eval", "exec", "touch", "torch.save"])
def test_a_pickle_that_calls_a_function_calls_nothing(tmp_path, where, name):
    sentinel = tmp_path / "sentinel"
    call = {
        "system": lambda: Call(os.system, f"touch {sentinel}"),
        "open": lambda: Call(open, str(sentinel), "w"),
        "eval": lambda: Call(eval, f"open({str(sentinel)!r}, 'w')"),
        "exec": lambda: Call(exec, f"open({str(sentinel)!r}, 'w')"),
        "touch": lambda: Call(type(sentinel).touch, sentinel),
        "torch.save": lambda: Call(torch.save, {}, str(sentinel)),
    }[name]()
    value = {
        "alone": call,
        "item": {"state_dict": {"model.x": call}},
        "key": {"hyper_parameters": {(1, call): 1}},
        "deep": {"hyper_parameters": {"a": [(call,), SimpleNamespace(b=call)]}},
        "state": Call(SimpleNamespace, call),
        "called again": Call(getattr, call, "anything"),
    }[where]
    path = write_zip(tmp_path / "a.ckpt", pickle.dumps(value, protocol=2))

    with TorchFile(path):
        pass
    assert not sentinel.exists()

    # The same pickle does call it where it may: the test can fail.
    with suppress(AttributeError, TypeError):
        pickle.loads(pickle.dumps(value, protocol=2))
    assert sentinel.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n}(U\x01aU\x01bub.",  # sets attributes on what a name leads to
        b"cos\nsystem\nN}(U\x01aU\x01bu\x86b.",
        b"cos\nsystem\n(U\x01aU\x01bu.",  # and items
        b"cos\nsystem\n(U\x01ae.",
        b"\x80\x04cos\nsystem\n(U\x01a\x90.",
        b"ctorch._utils\n_rebuild_tensor_v2\n}(U\x0c__defaults__U\x01bub.",
        b"ctorch._utils\n_rebuild_tensor_v2\nN}(U\x0c__defaults__)u\x86b.",
        b"ccollections\nOrderedDict\nN}(U\x05itemsNu\x86b.",
        b"(ios\nsystem\nU\x04true\n.",
        b"\x80\x02\x82\x01.",  # extension registry
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of 8 EiB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",  # bytes of 8 EiB
        b"Pname\n.",
        b"\x85.",
        b"N",
        b"",
        b"\xff\xfe",
    ],
)
def test_a_broken_or_hostile_pickle_is_an_error_and_leaves_nothing_behind(tmp_path, pickled):
    path = write_zip(tmp_path / "a.ckpt", pickled)
    before = dict(vars(Inert))
    with suppress(DataError), TorchFile(path):
        pass
    assert vars(Inert) == before
    assert InertUnpickler._describe_tensor.__defaults__ is None


def test_a_memo_index_costs_no_memory(tmp_path):
    path = write_zip(tmp_path / "a.ckpt", b"\x80\x02Nr" + struct.pack("<I", 2**31) + b".")
    tracemalloc.start()
    with TorchFile(path):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_elements": 2**60},
        {"n_elements": 5},
        {"shape": (2**40, 3)},
        {"shape": (2**40,), "stride": (0,)},
        {"shape": (3, 3)},
        {"shape": (2, 3), "stride": (3,)},
        {"offset": 1},
        {"offset": -1},
        {"stride": (-3, 1)},
        {"shape": (2, "3")},
        {"shape": None},
        {"n_elements": None},
        {"kind": "LongStorage"},
    ],
)
def test_sizes_that_do_not_fit_the_file_are_refused(tmp_path, sizes):
    numbers = ("data/0", np.arange(6, dtype=np.float32).tobytes())
    with TorchFile(write_zip(tmp_path / "ok", pickle_tensor(), members=[numbers])) as file:
        assert file.read_tensor(file.contents).tolist() == [[0, 1, 2], [3, 4, 5]]
    path = write_zip(tmp_path / "a.ckpt", pickle_tensor(**sizes), members=[numbers])
    with TorchFile(path) as file, pytest.raises(DataError, match=r"a\.ckpt cannot be read"):
        file.read_tensor(file.contents)


def test_a_compressed_archive_is_refused(tmp_path):
    bomb = ("data/0", bytes(2**24))
    path = write_zip(
        tmp_path / "a.ckpt", pickle.dumps({}), members=[bomb], compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(DataError, match="compressed members"):
        TorchFile(path)


def test_members_on_top_of_each_other_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.ckpt", pickle.dumps({}), members=[("data/0", bytes(4096))])
    with zipfile.ZipFile(path, "a") as archive:
        member = archive.getinfo("archive/data/0")
        for i in range(1, 9):
            other = zipfile.ZipInfo(f"archive/data/{i}")
            for name in ("file_size", "compress_size", "header_offset", "CRC"):
                setattr(other, name, getattr(member, name))
            archive.filelist.append(other)
        archive._didModify = True
    with pytest.raises(DataError, match="larger together than the file"):
        TorchFile(path)


def test_a_huge_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torchfile, "MAX_PICKLE_BYTES", 100)
    path = write_zip(tmp_path / "a.ckpt", pickle.dumps("x" * 200))
    with pytest.raises(DataError, match=r"data\.pkl of 2\d\d bytes; up to 100 are read"):
        TorchFile(path)


def test_damage_is_told_from_the_checksum(tmp_path):
    torch.save({"a": torch.ones(100)}, tmp_path / "a.ckpt")
    raw = bytearray((tmp_path / "a.ckpt").read_bytes())
    at = raw.index(torch.ones(100).numpy().tobytes())
    raw[at] ^= 1
    (tmp_path / "a.ckpt").write_bytes(raw)
    with TorchFile(tmp_path / "a.ckpt") as file, pytest.raises(DataError, match="damaged member"):
        file.read_tensor(file.contents["a"])


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_file_cut_off_is_refused(tmp_path, kept):
    torch.save({"a": torch.ones(100)}, tmp_path / "a.ckpt")
    raw = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(raw[: int(kept * len(raw)) if kept < 1 else kept])
    with pytest.raises(DataError, match="cut off by a broken download"):
        TorchFile(tmp_path / "a.ckpt")


def test_a_file_of_before_torch_1_6_is_refused_with_advice(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"before 1\.6.*torch\.save\(torch\.load"):
        TorchFile(tmp_path / "a.ckpt")


def test_another_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"0 members named data\.pkl"):
        TorchFile(tmp_path / "a.ckpt")


def double(value, times):
    for _ in range(times):
        value = [value, value] if isinstance(value, list) else (value, value)
    return value


@pytest.mark.parametrize("value", [["ha"], ("ha",)])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: value,
        lambda value: {"state_dict": {"a": value}},
        lambda value: {"state_dict": {}, "hyper_parameters": {"img_size": value}},
    ],
)
def test_a_few_bytes_that_stand_for_endless_values_are_refused(value, wrap, tmp_path):
    path = write_zip(tmp_path / "model.ckpt", pickle.dumps(wrap(double(value, 60))))
    with pytest.raises(DataError, match=r"refers to itself|without end"):
        read_published(path)


def test_a_key_that_takes_ages_to_hash_is_refused(tmp_path):
    key = pickle.dumps(double(("ha",), 60), protocol=2)[2:-1]
    path = write_zip(tmp_path / "model.ckpt", b"\x80\x02}" + key + b"K\x01s.")
    with pytest.raises(DataError, match="without end"):
        TorchFile(path)


def test_a_byte_array_is_refused_before_its_memory_is_taken(tmp_path):
    promise = b"\x80\x05" + pickle.BYTEARRAY8 + struct.pack("<Q", 2**40) + b"x."
    with pytest.raises(DataError, match="byte array"):
        TorchFile(write_zip(tmp_path / "model.ckpt", promise))


def test_a_number_that_cannot_be_printed_is_refused(tmp_path):
    path = write_zip(tmp_path / "model.ckpt", pickle.dumps({"state_dict": {10**6000: 1}}))
    with pytest.raises(DataError, match="beyond any size"):
        read_published(path)
