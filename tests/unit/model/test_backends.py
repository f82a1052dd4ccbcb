from __future__ import annotations

import logging
import re
import sys
import types

import pytest
import torch

from neurostorm_bids.errors import MissingFileError, UsageError
from neurostorm_bids.kernels import library
from neurostorm_bids.kernels.scan import MAX_STATES, selective_scan_c
from neurostorm_bids.model import backends, trial
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.backends import VARIABLE, choose_backend, find_scan, selective_scan
from neurostorm_bids.model.operations import FAST, REFERENCE, TORCH, choose_operations
from neurostorm_bids.model.scan import selective_scan_ref, selective_scan_torch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Start every test without a choice, and as if nothing had been looked for or said."""
    monkeypatch.delenv(VARIABLE, raising=False)
    caches = (
        library._load_library,
        library._say_once,
        backends._find_cuda_kernel,
        backends._say_once,
        trial.try_triton,
    )
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def _without_library(monkeypatch):
    monkeypatch.setattr(library, "FILE_NAME", "not-there.so")


@pytest.fixture
def _without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "neurostorm_bids.kernels.triton.scan", None)


@pytest.fixture
def install_mamba(monkeypatch):
    """Return a function that pretends that mamba-ssm is installed with its extension."""

    def install():
        interface = types.SimpleNamespace(selective_scan_fn=selective_scan_ref)
        for name in ("selective_scan_cuda", "mamba_ssm", "mamba_ssm.ops"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", interface)

    return install


def choose(device=CPU, dtype=torch.float32, n_states=16):
    return choose_backend(device, dtype, n_states=n_states)


def test_the_compiled_kernels_are_taken_where_they_are():
    if library.find_library() is None:
        pytest.skip("the C kernels were not compiled")
    assert choose() == "cpu"
    assert find_scan("cpu") is selective_scan_c


@pytest.mark.usefixtures("_without_library")
def test_without_compiled_kernels_pytorch_is_taken_and_that_is_said_once(caplog):
    with caplog.at_level(logging.INFO, logger="neurostorm_bids"):
        assert choose() == choose() == "torch"
    (message,) = caplog.messages
    assert "No compiled kernels (they were not built" in message


@pytest.mark.usefixtures("_without_library")
def test_compiled_kernels_that_are_missing_are_an_error_when_forced(monkeypatch):
    monkeypatch.setenv(VARIABLE, "cpu")
    with pytest.raises(MissingFileError, match="where a C compiler"):
        selective_scan(
            *(torch.zeros(1, 1, 1),) * 2, torch.zeros(1, 1), *(torch.zeros(1, 1, 1),) * 2
        )


def test_a_broken_library_is_not_used(monkeypatch, tmp_path):
    (tmp_path / "broken.so").write_bytes(b"not a library")
    monkeypatch.setattr(library, "FILE_NAME", str(tmp_path / "broken.so"))
    assert library.find_library() is None
    with pytest.raises(MissingFileError, match="does not load"):
        library.require_library()


def test_a_library_of_another_version_is_not_used(monkeypatch):
    if library.find_library() is None:
        pytest.skip("the C kernels were not compiled")
    library._load_library.cache_clear()
    monkeypatch.setattr(library, "INTERFACE", 0)
    with pytest.raises(MissingFileError, match="another version"):
        library.require_library()


def test_more_precision_or_more_states_than_the_kernels_have_go_to_pytorch(monkeypatch):
    assert choose(dtype=torch.float64) == "torch"
    assert choose(n_states=MAX_STATES + 1) == "torch"
    monkeypatch.setenv(VARIABLE, "cpu")
    assert choose(dtype=torch.float64) == "torch"
    with pytest.raises(UsageError, match="at most 64 state values"):
        choose(n_states=MAX_STATES + 1)


@pytest.mark.parametrize(
    ("name", "scan"), [("reference", selective_scan_ref), ("torch", selective_scan_torch)]
)
@pytest.mark.parametrize("device", [CPU, CUDA])
def test_what_runs_everywhere_can_be_forced_everywhere(monkeypatch, name, scan, device):
    monkeypatch.setenv(VARIABLE, name)
    assert choose(device) == name
    assert find_scan(name) is scan


@pytest.mark.parametrize(("name", "device"), [("cpu", CUDA), ("mamba-ssm", CPU), ("triton", CPU)])
def test_a_forced_backend_does_not_compute_elsewhere(monkeypatch, name, device):
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(UsageError, match=rf"for NEUROSTORM_BACKEND={name}, found them on"):
        choose(device)


def test_an_unknown_backend_is_refused_before_any_work(monkeypatch, tiny_config):
    monkeypatch.setenv(VARIABLE, "abacus")
    with pytest.raises(UsageError, match=r"reference, torch, cpu, .* found 'abacus'"):
        Backbone(tiny_config)


@pytest.mark.parametrize("name", ["triton", "mamba-ssm"])
def test_a_missing_backend_is_an_error_before_any_work(monkeypatch, tiny_config, name):
    for module in ("selective_scan_cuda", "mamba_ssm", "neurostorm_bids.kernels.triton.scan"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(MissingFileError, match="Expected"):
        Backbone(tiny_config)


def test_forcing_a_backend_replaces_only_the_default(monkeypatch):
    x = torch.zeros(1)
    monkeypatch.setenv(VARIABLE, "reference")
    assert choose_operations(FAST, x, n_states=16) is REFERENCE
    monkeypatch.setenv(VARIABLE, "torch")
    assert choose_operations(FAST, x, n_states=16) is TORCH
    assert choose_operations(REFERENCE, x, n_states=16) is REFERENCE
    other = FAST._replace(scan=selective_scan_ref)
    assert choose_operations(other, x, n_states=16) is other


def test_all_backends_of_this_machine_compute_the_same(monkeypatch, tiny_config):
    torch.manual_seed(0)
    backbone, x = Backbone(tiny_config).eval(), torch.randn(1, 1, 16, 16, 16, 4)
    names = ["reference", "torch"] + ["cpu"] * (library.find_library() is not None)
    found = []
    for name in names:
        monkeypatch.setenv(VARIABLE, name)
        with torch.no_grad():
            found.append(backbone(x))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("error", [ImportError("no extension"), RuntimeError("other torch")])
def test_a_broken_cuda_kernel_is_named_once_and_left_alone(monkeypatch, caplog, error):
    def fail(_name):
        raise error

    monkeypatch.setattr("importlib.import_module", fail)
    with caplog.at_level(logging.INFO, logger="neurostorm_bids.model.backends"):
        assert choose(CUDA) == choose(CUDA) == "torch"
    assert [str(error) in message for message in caplog.messages] == [True]


def test_mamba_ssm_without_its_extension_is_told_apart(monkeypatch):
    monkeypatch.setattr(backends, "_is_installed", lambda module: module == "mamba_ssm")
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    with pytest.raises(MissingFileError, match=r"without its CUDA extension.* Mamba-1 layer"):
        find_scan("mamba-ssm")


@pytest.mark.usefixtures("_without_triton")
def test_an_installed_cuda_kernel_is_found(install_mamba):
    install_mamba()
    assert choose(CUDA) == "mamba-ssm"
    assert find_scan("mamba-ssm") is selective_scan_ref
    assert choose(CUDA, torch.float64) == "torch"


BLOCK_ERRORS = {torch.float32: 1e-6, torch.bfloat16: 1e-2}


@pytest.fixture
def install_triton(monkeypatch, install_mamba):
    """Return a function that pretends that Triton is there, and mamba-ssm, and a GPU.

    The trial runs on the CPU.
    """
    measure = trial.measure_scan_error
    monkeypatch.setattr(trial, "measure_scan_error", lambda scan, _device: measure(scan, CPU))
    monkeypatch.setattr(trial, "measure_block_error", lambda _device, dtype: BLOCK_ERRORS[dtype])

    def install(scan, *, capability=(9, 0)):
        install_mamba()
        module = types.SimpleNamespace(selective_scan_triton=scan)
        monkeypatch.setitem(sys.modules, "neurostorm_bids.kernels.triton.scan", module)
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda _device: capability)

    return install


def test_triton_is_taken_before_all_others_where_its_trial_succeeds(install_triton):
    install_triton(selective_scan_torch)
    assert choose(CUDA) == "triton"
    assert find_scan("triton") is selective_scan_torch
    assert choose(CUDA, torch.float64) == "torch"


def _scan_wrongly(u, *arguments, **options):
    return selective_scan_torch(u, *arguments, **options) + 1e-3 * u


def _fail_to_scan(*_arguments, **_options):
    raise RuntimeError("Failed to find C compiler.")


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        (_scan_wrongly, "scans on cuda are wrong by 0.00"),
        (_fail_to_scan, "failed with RuntimeError: Failed to find C compiler"),
        (lambda u, **_options: u * torch.nan, "wrong by nan|appears to not have been used"),
    ],
)
def test_kernels_that_fail_their_trial_are_left_alone_with_one_warning(
    caplog, install_triton, scan, message
):
    install_triton(scan)
    with caplog.at_level(logging.WARNING, logger="neurostorm_bids"):
        assert choose(CUDA) == choose(CUDA) == "mamba-ssm"
    (found,) = caplog.messages
    assert re.search(f"The Triton kernels are not used: .*({message})", found)


@pytest.mark.parametrize("dtype", BLOCK_ERRORS, ids=str)
def test_wrong_blocks_are_left_alone_too(monkeypatch, caplog, install_triton, dtype):
    install_triton(selective_scan_torch)
    monkeypatch.setitem(BLOCK_ERRORS, dtype, 0.1)
    assert choose(CUDA) == "mamba-ssm"
    assert f"blocks on cuda in {dtype} are wrong by 0.1" in caplog.text


def test_an_old_gpu_is_no_reason_for_a_warning(caplog, install_triton):
    install_triton(selective_scan_torch, capability=(7, 5))
    with caplog.at_level(logging.WARNING, logger="neurostorm_bids"):
        assert choose(CUDA) == "mamba-ssm"
    assert not caplog.messages
