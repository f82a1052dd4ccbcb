from __future__ import annotations

from functools import partial

import pytest
import torch

from neurostorm_bids.errors import UsageError
from neurostorm_bids.model.augment import AugmentConfig
from neurostorm_bids.model.autoencoder import MaskedAutoencoder
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.masking import MaskScheme
from neurostorm_bids.train.clips import Batch
from neurostorm_bids.train.networks import ContrastiveEncoder, JointNetwork
from neurostorm_bids.train.objectives import (
    Contrasting,
    MaskedReconstruction,
    WeightedSum,
    augment_samples,
    average_masked,
)
from neurostorm_bids.train.step import Loss

UNIT = (1.0, 1.0, 1.0)


def keep(rows):
    """Gather the rows of one process alone."""
    return rows


@pytest.fixture
def make_batch(tiny):
    def make(positions, participants=(1, 2, 3), clips_per_sample=2):
        runs = tiny.make_runs(participants)
        dataset = tiny.make_dataset(runs, clips_per_sample=clips_per_sample)
        loaded = list(dataset.stream(positions, workers=1))
        return Batch.join(loaded, torch.device("cpu"))

    return make


@pytest.fixture
def autoencoder(tiny):
    torch.manual_seed(0)
    return MaskedAutoencoder(tiny.CONFIG, scheme=tiny.SCHEME).eval()


@pytest.fixture
def masked(tiny):
    return partial(MaskedReconstruction, tiny.CONFIG, scheme=tiny.SCHEME, ratio=0.5)


def test_the_masked_loss_is_that_of_the_autoencoder(make_batch, autoencoder, masked):
    batch = make_batch(range(4))
    mask = masked().draw_masks(batch.samples)
    expected = autoencoder(batch.clips[0], mask).loss
    assert torch.allclose(masked()(autoencoder, batch).value, expected)


def test_a_sample_has_its_mask_in_whatever_batch_it_comes(make_batch, autoencoder, masked):
    together = masked()(autoencoder, make_batch(range(4))).value
    alone = [masked()(autoencoder, make_batch([position])).value for position in range(4)]
    assert torch.allclose(together, torch.stack(alone).mean())
    masks = masked().draw_masks(make_batch(range(2)).samples)
    assert not torch.equal(masks[0], masks[1])


def test_every_clip_counts_the_same_however_much_of_it_is_masked():
    error = torch.zeros(2, 1, 1, 1, 4)
    error[0] = 1
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool).view(error.shape)
    assert average_masked(error, mask).item() == 0.5


def test_only_hidden_patches_count():
    error = torch.tensor([1.0, 5.0]).view(1, 1, 1, 1, 2)
    mask = torch.tensor([True, False]).view(error.shape)
    assert average_masked(error, mask).item() == 1.0


def test_regions_are_masked_whole(tiny, make_batch):
    regions = torch.tensor([[[0, 0], [0, 0]], [[1, 1], [-1, -1]]])
    scheme = MaskScheme(space="atlas", time="tube")
    objective = MaskedReconstruction(tiny.CONFIG, scheme=scheme, ratio=0.5, regions=regions)
    masks = objective.draw_masks(make_batch(range(8)).samples)
    assert not masks[:, regions < 0].any()
    assert {mask[0, 0, 0, 0].item() for mask in masks} == {True, False}
    assert (masks[:, 0] == masks[:, :1, :1, :1, :1][:, 0]).all()


def test_clips_to_reconstruct_are_changed_in_training_alone(tiny, make_batch, autoencoder, masked):
    batch = make_batch(range(2))
    plain, augmented = masked(), masked(augment=tiny.AUGMENT)
    assert torch.equal(plain(autoencoder, batch).value, augmented(autoencoder, batch).value)
    autoencoder.train()
    assert not torch.equal(plain(autoencoder, batch).value, augmented(autoencoder, batch).value)


def test_a_sample_is_augmented_alike_in_whatever_batch_but_not_in_every_view(tiny, make_batch):
    batch = make_batch(range(3))
    augment = partial(augment_samples, config=tiny.AUGMENT, voxel_size_mm=UNIT)
    together = augment(batch.clips[0], batch.samples, view=0)
    alone = augment(batch.clips[0][2:], batch.samples[2:], view=0)
    assert torch.allclose(together[2:], alone)
    other = augment(batch.clips[0], batch.samples, view=1)
    assert not torch.allclose(together, other)


@pytest.mark.parametrize("contrasts", [("instance",), ("local",), ("instance", "local")])
def test_a_contrast_teaches_the_encoder(tiny, make_batch, contrasts):
    torch.manual_seed(0)
    model = ContrastiveEncoder(Backbone(tiny.CONFIG), gather=keep)
    objective = Contrasting(contrasts, augment=tiny.AUGMENT, gather=keep)
    loss = objective(model, make_batch(range(6)))
    assert tuple(loss.parts) == contrasts
    loss.value.backward()
    weight = model.backbone.patch_embed.fc.weight
    assert weight.grad.abs().max() > 0


def test_embeddings_that_tell_everyone_apart_cost_less_than_those_that_do_not(make_batch):
    batch = make_batch(range(8), participants=(1, 2, 3, 4))
    still = AugmentConfig(
        max_rotation_deg=0, max_scaling=0, noise_probability=0, smoothing_probability=0
    )
    objective = Contrasting(("instance",), augment=still, gather=keep)

    def embed_pattern(clips):
        return clips.mean(-1).flatten(1)  # a participant's pattern without the noise around it

    def embed_nothing(clips):
        return torch.ones(len(clips), 2)

    assert objective(embed_pattern, batch).value < objective(embed_nothing, batch).value / 4


def test_a_batch_of_one_participant_has_nothing_to_tell_apart(tiny, make_batch):
    model = ContrastiveEncoder(Backbone(tiny.CONFIG), gather=keep)
    objective = Contrasting(("instance",), augment=tiny.AUGMENT, gather=keep)
    loss = objective(model, make_batch(range(4), participants=(1,)))
    loss.value.backward()
    assert loss.value.item() == 0


def test_unknown_contrasts_are_refused(tiny):
    with pytest.raises(UsageError, match="found colour"):
        Contrasting(("colour",), augment=tiny.AUGMENT, gather=keep)
    with pytest.raises(UsageError, match="found none"):
        Contrasting((), augment=tiny.AUGMENT, gather=keep)


def test_a_sum_weighs_its_terms_and_logs_them_unweighed(make_batch):
    class Constant:
        min_samples = 3

        def __init__(self, value):
            self.value = value

        def __call__(self, _model, _batch):
            return Loss(torch.tensor(self.value), {"part": torch.tensor(self.value + 1)})

    total = WeightedSum({"a": (2.0, Constant(1.0)), "b": (0.5, Constant(4.0))})
    value, parts = total(None, make_batch(range(1)))
    assert value.item() == 4.0
    assert {name: part.item() for name, part in parts.items()} == {
        "a": 1.0,
        "a_part": 2.0,
        "b": 4.0,
        "b_part": 5.0,
    }
    assert total.min_samples == 3


def test_the_joint_network_is_the_autoencoder_and_the_encoder_in_one(
    autoencoder, make_batch, masked
):
    joint = JointNetwork(autoencoder, gather=keep).eval()
    batch = make_batch(range(2))
    expected = masked()(autoencoder, batch).value
    assert torch.equal(masked()(joint, batch).value, expected)
    encoder = ContrastiveEncoder(autoencoder.backbone, gather=keep).eval()
    encoder.head = joint.head
    assert torch.equal(joint(batch.clips[0]), encoder(batch.clips[0]))
    assert len(set(joint.state_dict())) == len(list(joint.parameters())) + 3  # batch norm's
