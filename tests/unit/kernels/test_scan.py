from __future__ import annotations

import concurrent.futures
import multiprocessing

import pytest
import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.kernels import scan as scan_module
from neurostorm_bids.kernels.library import LEVEL_VARIABLE
from neurostorm_bids.kernels.scan import MAX_STATES, selective_scan_c
from neurostorm_bids.model.scan import selective_scan_ref, selective_scan_torch

pytestmark = pytest.mark.usefixtures("library")

SHAPES = {
    "one of all": (1, 1, 1, 16),
    "six tokens": (2, 20, 6, 16),
    "a lane more than a vector": (3, 17, 21, 16),
    "as many as the base model's": (3, 72, 40, 16),
    "tokens past a tile": (2, 5, 300, 16),
    "tokens past two tiles": (1, 3, 513, 4),
    "other states": (3, 9, 33, 5),
    "most states": (2, 4, 9, MAX_STATES),
}


def make_arguments(n_sequences, n_channels, n_tokens, n_states, *, seed=None, tokens_first=True):
    """Draw all arguments of a scan anew, laid out as the Mamba layer hands them over."""
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    def draw_tokens(n_values):
        if tokens_first:  # parts of a wider tensor
            return draw(n_tokens, n_sequences, n_values + 3)[..., 2:-1].permute(1, 2, 0)
        return draw(n_sequences, n_values, n_tokens)

    return {
        "u": draw_tokens(n_channels),
        "delta": draw_tokens(n_channels) - 1,
        "A": -draw(n_channels, n_states).exp(),
        "B": draw_tokens(n_states),
        "C": draw_tokens(n_states),
        "D": draw(n_channels),
        "z": draw_tokens(n_channels),
        "delta_bias": draw(n_channels),
    }


def differentiate(scan, arguments, *, softplus=True):
    """Return a scan's output and the gradients of a weighted sum of it."""
    leaves = {name: value.detach().requires_grad_() for name, value in arguments.items()}
    y = scan(**leaves, delta_softplus=softplus)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return {"y": y} | dict(
        zip(leaves, torch.autograd.grad((y * weights).sum(), list(leaves.values())), strict=True)
    )


def assert_close(found, exact, *, tolerance=5e-6):
    for name, value in found.items():
        scale = exact[name].abs().max().clamp(min=1)  # of a single small value nothing is certain
        error = (value.double() - exact[name]).abs().max() / scale
        assert error < tolerance, f"{name}: {error:.1e}"


def to_double(arguments):
    return {name: value.double() for name, value in arguments.items()}


@pytest.mark.usefixtures("level", "poison")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_scan_equals_the_reference_with_all_gradients(shape):
    arguments = make_arguments(*shape)
    exact = differentiate(selective_scan_ref, to_double(arguments))
    assert_close(differentiate(selective_scan_c, arguments), exact)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("mean_step", [-5.0, -1.0])
def test_rounding_does_not_add_up_over_tokens(mean_step):
    arguments = make_arguments(8, 32, 256, 16, seed=0)
    arguments["delta"] = arguments["delta"] + mean_step + 1
    with torch.no_grad():
        y = selective_scan_c(**arguments, delta_softplus=True).double()
        exact = selective_scan_torch(**to_double(arguments), delta_softplus=True)
    error = y - exact
    assert error.norm() < 1.5e-7 * exact.norm()  # a few roundings of a single number
    assert ((error * exact).sum() / exact.square().sum()).abs() < 1e-8  # neither up nor down


@pytest.mark.usefixtures("level")
def test_any_layout_is_read():
    arguments = make_arguments(3, 18, 7, 16, tokens_first=False)
    exact = differentiate(selective_scan_ref, to_double(arguments))
    assert_close(differentiate(selective_scan_c, arguments), exact)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("left_out", ["D", "z", "delta_bias"])
def test_arguments_may_be_left_out(left_out):
    arguments = make_arguments(2, 18, 9, 16)
    del arguments[left_out]
    exact = differentiate(selective_scan_ref, to_double(arguments))
    assert_close(differentiate(selective_scan_c, arguments), exact)


@pytest.mark.usefixtures("level")
def test_without_softplus_steps_are_taken_as_they_are():
    arguments = make_arguments(2, 18, 9, 16)
    arguments["delta"] = arguments["delta"].abs()
    arguments["delta_bias"] = arguments["delta_bias"].abs()
    exact = differentiate(selective_scan_ref, to_double(arguments), softplus=False)
    assert_close(differentiate(selective_scan_c, arguments, softplus=False), exact)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("delta", [-200.0, -20.0, 20.0, 1e4, 1e30])
def test_extreme_steps_give_numbers(delta):
    arguments = make_arguments(2, 18, 33, 16)
    arguments["delta"] = torch.full_like(arguments["delta"], delta)
    found = differentiate(selective_scan_c, arguments)
    assert all(value.isfinite().all() for name, value in found.items() if abs(delta) < 1e30)
    assert not any(value.isnan().any() for value in found.values())
    exact = differentiate(selective_scan_ref, to_double(arguments))
    assert_close({"y": found["y"]}, exact)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("rate", [-1e30, -1e6, -1e-6, 0.0, 0.05])
def test_any_rate_is_exact_and_finite(rate):
    arguments = make_arguments(2, 18, 33, 16)
    arguments["A"] = torch.full_like(arguments["A"], rate)
    with torch.no_grad():
        y = selective_scan_c(**arguments, delta_softplus=True)
        exact = selective_scan_ref(**to_double(arguments), delta_softplus=True)
    assert_close({"y": y}, {"y": exact})


@pytest.mark.usefixtures("level")
def test_what_is_not_a_number_stays_in_its_sequence_and_channel():
    arguments = make_arguments(3, 18, 12, 16)
    arguments["u"][1, 4, 6] = torch.nan
    with torch.no_grad():
        y = selective_scan_c(**arguments, delta_softplus=True)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[1, 4, 6:] = True
    assert torch.equal(y.isnan(), expected)


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_the_number_of_threads_changes_no_digit(n_threads, monkeypatch):
    monkeypatch.setattr(scan_module, "PART_VALUES", 1)
    arguments = make_arguments(40, 18, 12, 16)
    torch.set_num_threads(1)
    one = differentiate(selective_scan_c, arguments)
    torch.set_num_threads(n_threads)
    several = differentiate(selective_scan_c, arguments)
    assert all(torch.equal(several[name], one[name]) for name in one)


def test_calls_from_several_threads_do_not_mix(monkeypatch):
    monkeypatch.setattr(scan_module, "PART_VALUES", 1)
    torch.set_num_threads(2)
    cases = [make_arguments(9, 18, 12, 16) for _ in range(8)]
    expected = [differentiate(selective_scan_c, case) for case in cases]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda case: differentiate(selective_scan_c, case), cases)
        for one, other in zip(found, expected, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def sum_up(seed):
    """Scan by two threads; all else by one, as PyTorch's own threads do not survive a fork."""
    torch.set_num_threads(1)
    arguments = make_arguments(9, 18, 12, 16, seed=seed)
    torch.set_num_threads(2)
    y = selective_scan_c(**arguments, delta_softplus=True)
    torch.set_num_threads(1)
    return y.double().sum().item()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_other_processes_may_scan_too(method, monkeypatch):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not start processes by {method}")
    monkeypatch.setattr(scan_module, "PART_VALUES", 1)
    expected = sum_up(3)  # the parent's threads exist before the child does
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(sum_up, (3,)).get(timeout=120) == expected


@pytest.mark.usefixtures("level")
def test_half_precision_is_computed_in_float32():
    arguments = {name: value.bfloat16() for name, value in make_arguments(2, 18, 9, 16).items()}
    y = selective_scan_c(**arguments, delta_softplus=True)
    exact = selective_scan_ref(**to_double(arguments), delta_softplus=True)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-5)


def test_no_sequences_give_none():
    arguments = make_arguments(0, 18, 9, 16)
    assert selective_scan_c(**arguments).shape == (0, 18, 9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("B", torch.zeros(2, 15, 9)),
        ("delta", torch.zeros(2, 18, 8)),
        ("D", torch.zeros(17)),
        ("z", torch.zeros(1, 18, 9)),
        ("u", torch.zeros(2, 18, 9, device="meta")),
    ],
)
def test_shapes_that_would_be_read_past_their_end_are_refused(name, value):
    with pytest.raises(ValueError, match=r"Expected \w+ to be .* found "):
        selective_scan_c(**make_arguments(2, 18, 9, 16) | {name: value})


def test_too_many_states_are_refused():
    with pytest.raises(ValueError, match=f"1 to {MAX_STATES} state values per channel, found 65"):
        selective_scan_c(**make_arguments(1, 2, 3, 65))


def test_more_precision_than_the_kernel_has_is_refused():
    with pytest.raises(ValueError, match="found float64"):
        selective_scan_c(**to_double(make_arguments(1, 2, 3, 16)))


def test_an_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.setenv(LEVEL_VARIABLE, "avx9000")
    with pytest.raises(UsageError, match=r"NEUROSTORM_CPU_LEVEL .* found 'avx9000'"):
        selective_scan_c(**make_arguments(1, 2, 3, 16))
