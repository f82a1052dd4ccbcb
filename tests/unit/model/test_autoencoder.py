from __future__ import annotations

import importlib.util
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.kernels.library import find_library
from neurostorm_bids.model.autoencoder import MaskedAutoencoder, cut_patches, join_patches
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import ModelConfig
from neurostorm_bids.model.masking import MaskScheme, draw_mask, number_units
from neurostorm_bids.model.strd import StrdConfig

PUBLISHED_CASES = {
    "random_random": "random/random",
    "random_tube": "random/tube",
    "window_random": "window/random",
    "window_tube_B1": "window/tube",
    "window_tube_B2": "window/tube",
    "atlas_random": "atlas/random",
    "atlas_tube": "atlas/tube",
}
TOKEN_OF_SCHEME = {
    "random/random": "mask_token",
    "random/tube": "mask_token",
    "window/random": "window_mask_token",
    "window/tube": "mask_token",
    "atlas/random": "atlas_mask_token",
    "atlas/tube": "atlas_mask_token",
}
PUBLISHED_CONFIG = ModelConfig(
    img_size=(24, 24, 24, 8),
    embed_dim=8,
    depths=(2, 2, 2, 2),
    window_size=(4, 4, 4, 4),
    first_window_size=(4, 4, 4, 4),
    patch_size=(3, 3, 3, 1),
    last_layer_full_msa=True,
)
# Float32 alone moves the published predictions by 5e-6 (root mean square) from those in float64,
# and single values by 5e-5 of the largest; its gradients by 1e-4, and by more where only some
# of a tensor's values are compared: the published ones by 1.6e-4.
TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 2e-4
ROUNDING_TOLERANCE = 1.5e-4


def measure_error(found, expected):
    """Return the root mean square error as a share of the expected values'."""
    expected = torch.as_tensor(np.asarray(expected))
    return ((found - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def numbers(golden):
    return np.load(golden / "mae.npz")


@pytest.fixture(scope="module")
def recipe(golden):
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def load_published(numbers, recipe):
    """Return a function that builds the autoencoder of the published numbers."""

    def load(scheme):
        model = MaskedAutoencoder(PUBLISHED_CONFIG, scheme=MaskScheme.parse(scheme))
        shapes = {key: tuple(value.shape) for key, value in model.published_state().items()}
        weights = recipe.weights(shapes, int(numbers["weights_seed"]))
        assert recipe.digest(weights) == str(numbers["weights_sha256"])
        state = {key: torch.from_numpy(value).float() for key, value in weights.items()}
        model.load_published_state(state)
        return model.eval()

    return load


def make_clips(recipe, seed, *, n_clips, config=PUBLISHED_CONFIG):
    values = recipe.clip((n_clips, config.in_chans, *config.img_size), int(seed))
    return torch.from_numpy(values) / 32


@pytest.mark.parametrize("case", PUBLISHED_CASES)
def test_a_published_autoencoder_computes_the_published_numbers(
    case, numbers, recipe, load_published
):
    model = load_published(PUBLISHED_CASES[case])
    n_clips = int(numbers[f"{case}.n_clips"])
    clips = make_clips(recipe, numbers[f"{case}.input_seed"], n_clips=n_clips)
    bits = np.unpackbits(numbers[f"{case}.token_masked"])
    mask = torch.from_numpy(bits).bool().view(n_clips, 8, 8, 8, 8)
    with torch.no_grad():
        found = model(clips, mask)
    predicted = join_patches(found.patches, PUBLISHED_CONFIG.patch_size)
    assert measure_error(found.latent, numbers[f"{case}.latent"]) < TOLERANCE
    prediction = numbers[f"{case}.prediction"]
    assert measure_error(predicted[..., ::4, ::4, ::4, ::2], prediction) < TOLERANCE
    patch_error = numbers[f"{case}.patch_error"]
    assert measure_error(found.patch_error[:, ::2, ::2, ::2, ::2], patch_error) < TOLERANCE
    assert found.loss.item() == pytest.approx(float(numbers[f"{case}.loss"]), rel=1e-6)


@pytest.fixture(scope="module")
def differentiate(numbers, recipe, load_published):
    """Return a function that gives the loss of the published gradients, and ours by name."""

    def differentiate(dtype):
        model = load_published("window/random").to(dtype).train()
        clips = make_clips(recipe, numbers["grads.input_seed"], n_clips=1).to(dtype)
        units = number_units(model.scheme, (8, 8, 8, 8), window=(4, 4, 4, 4))
        mask = torch.from_numpy(np.unpackbits(numbers["grads.mask"])).bool()[units].unsqueeze(0)
        loss = model(clips, mask).loss
        loss.backward()
        grads = {key.removeprefix("backbone."): p.grad for key, p in model.named_parameters()}
        return loss.item(), {key: grad for key, grad in grads.items() if grad is not None}

    return differentiate


@pytest.fixture(scope="module")
def exact(differentiate):
    """The loss and the gradients in float64, which are the same on every machine."""
    return differentiate(torch.float64)


def test_gradients_are_the_published_ones(numbers, exact):
    loss, grads = exact
    assert loss == pytest.approx(float(numbers["grads.loss"]), rel=1e-6)
    names = str(numbers["grads.keys"]).split("\n")
    assert set(names) == set(grads)
    ends = np.cumsum(numbers["grads.n_samples"])[:-1]
    parts = np.split(numbers["grads.samples"], ends)
    for name, norm, part in zip(names, numbers["grads.norms"], parts, strict=True):
        grad = grads[name].flatten()
        assert grad.norm().item() == pytest.approx(float(norm), rel=GRADIENT_TOLERANCE), name
        if len(part):
            sampled = grad[:: max(1, -(-len(grad) // 24))]
            assert measure_error(sampled, part) < GRADIENT_TOLERANCE, name


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_gradients_in_float32_are_those_in_float64_but_for_rounding(
    differentiate, exact, backend, monkeypatch
):
    if backend == "cpu" and find_library() is None:
        pytest.skip("the C kernels were not compiled (python setup.py build_ext --inplace)")
    monkeypatch.setenv("NEUROSTORM_BACKEND", backend)
    loss, grads = differentiate(torch.float32)
    assert loss == pytest.approx(exact[0], rel=1e-6)
    assert set(grads) == set(exact[1])
    for name, grad in grads.items():
        assert measure_error(grad.double(), exact[1][name]) < ROUNDING_TOLERANCE, name


def test_a_checkpoint_of_the_published_program_gives_its_loss(shared, recipe):
    path = shared / "golden" / "official_mae.ckpt"
    if not path.is_file():
        pytest.skip(f"no published autoencoder at hand: {path}")
    file = torch.load(path, weights_only=True)
    expected = np.load(path.with_name("official_mae_expected.npz"))
    names = {field.lower(): field for field in file["hyper_parameters"]}
    fields = ModelConfig.published().to_dict()
    values = {name: file["hyper_parameters"].get(names.get(name)) for name in fields}
    values |= {name: fields[name] for name in fields if values[name] is None} | {"prompt_len": 0}
    config = ModelConfig.from_dict(values)
    model = MaskedAutoencoder(config, scheme=MaskScheme.parse("window/random")).eval()
    model.load_published_state(
        {key.removeprefix("model."): value for key, value in file["state_dict"].items()}
    )
    units = number_units(model.scheme, config.stage_grid(0), window=config.first_window_size)
    mask = torch.from_numpy(expected["mask"]).bool()[:, units]
    with torch.no_grad():
        found = model(make_clips(recipe, 500, n_clips=3, config=config), mask)
    predicted = join_patches(found.patches, config.patch_size)[..., ::2, ::2, ::2, ::2]
    assert measure_error(predicted, expected["pred_sub"]) < TOLERANCE
    assert found.loss.item() == pytest.approx(float(expected["loss"]), rel=1e-6)


def test_keys_and_shapes_are_those_of_the_published_base_model(shared):
    lines = (shared / "base_mae_keys.txt").read_text().splitlines()
    published = {}
    for line in lines:
        if not line.startswith("#"):
            key, shape, _ = line.split("\t")
            published[key] = tuple(int(size) for size in re.findall(r"\d+", shape))
    with torch.device("meta"):
        model = MaskedAutoencoder(ModelConfig.published(), scheme=MaskScheme.parse("window/random"))
    found = {key: tuple(value.shape) for key, value in model.published_state().items()}
    assert found == published


def test_the_base_model_has_as_many_parameters_as_published():
    with torch.device("meta"):
        model = MaskedAutoencoder(ModelConfig.published(), scheme=MaskScheme.parse("atlas/tube"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_712_964


@pytest.fixture(scope="module")
def small_config():
    return ModelConfig(
        img_size=(16, 8, 8, 5),
        in_chans=2,
        embed_dim=4,
        depths=(1, 2, 1),
        window_size=(2, 3, 2, 3),
        first_window_size=(4, 3, 2, 2),
        patch_size=(2, 1, 2, 1),
        last_layer_full_msa=False,
    )


@pytest.fixture
def make_small(small_config):
    def make(scheme="window/random", **options):
        torch.manual_seed(0)
        return MaskedAutoencoder(small_config, scheme=MaskScheme.parse(scheme), **options)

    return make


@pytest.fixture
def clips(small_config):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, *small_config.img_size, generator=generator)


@pytest.fixture
def draw(small_config):
    def draw(scheme="window/random", ratio=0.5, n_volumes=5):
        grid = *small_config.stage_grid(0)[:3], n_volumes
        regions = torch.arange(grid[0] * grid[1] * grid[2]).view(grid[:3]) % 5 - 1
        units = number_units(
            MaskScheme.parse(scheme),
            grid,
            window=small_config.first_window_size,
            regions=regions if scheme.startswith("atlas") else None,
        )
        generator = torch.Generator().manual_seed(2)
        return draw_mask(units, ratio=ratio, n_clips=2, generator=generator)

    return draw


def test_joining_undoes_cutting(clips):
    patch_size = (2, 4, 2, 1)
    patches = cut_patches(clips, patch_size)
    assert patches.shape == (2, 8, 2, 4, 5, 2 * 4 * 2 * 2)
    assert torch.equal(join_patches(patches, patch_size), clips)


def test_patches_run_as_the_patch_embedding_reads_them(make_small, clips, small_config):
    embed = make_small().backbone.patch_embed
    torch.testing.assert_close(embed.fc(cut_patches(clips, small_config.patch_size)), embed(clips))


@pytest.mark.parametrize("scheme", TOKEN_OF_SCHEME)
def test_what_is_masked_is_not_seen(make_small, clips, draw, small_config, scheme):
    model, mask = make_small(scheme).eval(), draw(scheme)
    patches = cut_patches(clips, small_config.patch_size).clone()
    patches[mask] = 100.0
    other = join_patches(patches, small_config.patch_size)
    with torch.no_grad():
        first, second = model(clips, mask), model(other, mask)
    assert torch.equal(first.latent, second.latent)
    assert torch.equal(first.patches, second.patches)
    assert second.loss > first.loss


def test_what_is_visible_is_seen(make_small, clips, draw):
    model, mask = make_small().eval(), draw()
    with torch.no_grad():
        latent = model(clips, mask).latent
        other = model(2 * clips, mask).latent
    assert not torch.allclose(latent, other)


def test_the_loss_is_the_mean_over_masked_patches_and_their_voxels(
    make_small, clips, draw, small_config
):
    mask = draw()
    with torch.no_grad():
        found = make_small().eval()(clips, mask)
    target = cut_patches(clips, small_config.patch_size)
    squares = (found.patches - target)[mask].square()
    torch.testing.assert_close(found.loss, squares.mean())
    assert found.patch_error.shape == mask.shape


def test_without_a_mask_the_encoder_is_the_backbone(make_small, clips, small_config):
    model = make_small().eval()
    backbone = Backbone(small_config).eval()
    backbone.load_state_dict(model.backbone.state_dict())
    mask = torch.zeros(2, *small_config.stage_grid(0), dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(model(clips, mask).latent, backbone(clips))


@pytest.mark.parametrize("n_volumes", [5, 3, 1])
def test_shorter_clips_and_cut_windows_are_reconstructed(make_small, clips, draw, n_volumes):
    found = make_small()(clips[..., :n_volumes], draw(n_volumes=n_volumes))
    assert found.patches.shape == (2, 8, 8, 4, n_volumes, 2 * 1 * 2 * 2)
    assert found.loss.isfinite()


@pytest.mark.parametrize(("scheme", "token"), TOKEN_OF_SCHEME.items())
def test_only_the_token_of_the_scheme_is_trained_and_all_else_is(
    make_small, clips, draw, scheme, token
):
    model = make_small(scheme)
    model(clips, draw(scheme)).loss.backward()
    untrained = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert untrained == {"mask_token", "window_mask_token", "atlas_mask_token"} - {token}
    assert untrained == {name for name, p in model.named_parameters() if not p.requires_grad}


def test_the_decoder_cuts_the_general_windows_and_shifts_every_second_block(make_small):
    model = make_small()
    blocks = [block for stage in model.layers_up for block in stage.blocks]
    assert {block.window for block in blocks} == {model.config.window_size}
    assert [block.shifted for block in blocks] == [False, True, False]


def test_a_few_steps_lower_the_loss(make_small, clips, draw):
    model, mask = make_small(), draw()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = model(clips, mask).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_bfloat16_gives_nearly_the_same_loss_in_float32(make_small, clips, draw):
    model, mask = make_small(), draw()
    exact = model(clips, mask).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(clips, mask).loss
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


def test_dropout_of_redundant_tokens_acts_in_training_alone(make_small, clips, draw):
    mask = draw()
    plain, strd = make_small(), make_small(strd=StrdConfig(rate=0.5))
    assert torch.equal(strd.eval()(clips, mask).loss, plain.eval()(clips, mask).loss)
    assert not torch.equal(strd.train()(clips, mask).loss, plain.train()(clips, mask).loss)


def test_weights_survive_the_published_form(make_small, clips, draw, small_config):
    model, mask = make_small().eval(), draw()
    torch.manual_seed(7)
    other = MaskedAutoencoder(small_config, scheme=model.scheme).eval()
    state = model.published_state()
    encoder = {key: state[key] for key in Backbone(small_config).state_dict()}
    Backbone(small_config).load_state_dict(encoder)
    with torch.no_grad():
        assert not torch.equal(other(clips, mask).loss, model(clips, mask).loss)
        other.load_published_state(state)
        assert torch.equal(other(clips, mask).loss, model(clips, mask).loss)


def test_the_one_token_of_older_files_stands_for_windows(make_small):
    state = make_small().published_state()
    token = torch.randn_like(state["window_mask_token"])
    old = {key: value for key, value in state.items() if not key.endswith("_mask_token")}
    model = make_small()
    model.load_published_state(old | {"mask_token": token})
    assert torch.equal(model.window_mask_token, token)
    assert torch.equal(model.mask_token, token.mean(0))
    assert torch.equal(model.atlas_mask_token, token.mean(0))


def test_weights_that_do_not_fit_are_refused(make_small):
    model = make_small()
    state = model.published_state()
    with pytest.raises(DataError, match=r"Missing key.*norm_up\.weight"):
        model.load_published_state({k: v for k, v in state.items() if k != "norm_up.weight"})
    with pytest.raises(DataError, match=r"Unexpected key.*head\.weight"):
        model.load_published_state(state | {"head.weight": torch.zeros(1)})
    with pytest.raises(DataError, match=r"size mismatch for backbone\.patch_embed\.fc\.bias"):
        model.load_published_state(state | {"patch_embed.fc.bias": torch.zeros(9)})


def test_a_mask_of_other_tokens_is_refused(make_small, clips, draw):
    with pytest.raises(UsageError, match=r"shape \(2, 8, 8, 4, 5\), found \(2, 8, 8, 4, 3\)"):
        make_small()(clips, draw(n_volumes=3))


def test_gradients_are_the_same_each_time_with_several_threads():
    n_threads = torch.get_num_threads()
    torch.manual_seed(0)
    scheme = MaskScheme.parse("window/random")
    model = MaskedAutoencoder(replace(PUBLISHED_CONFIG, depths=(1, 1, 1, 1)), scheme=scheme)
    clips = torch.randn(1, 1, *PUBLISHED_CONFIG.img_size)
    mask = torch.rand(1, 8, 8, 8, 8) < 0.75

    def differentiate():
        model.zero_grad()
        model(clips, mask).loss.backward()
        found = (part.grad for part in model.parameters() if part.grad is not None)
        return torch.cat([grad.flatten() for grad in found])

    try:
        torch.set_num_threads(2)
        first = differentiate()
        assert all(torch.equal(differentiate(), first) for _ in range(5))
    finally:
        torch.set_num_threads(n_threads)
