from __future__ import annotations

import pytest
import torch

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.config import HeadConfig, TargetSpec
from neurostorm_bids.model.heads import build_head, find_probabilities, pool_tokens, read_outputs

PUBLISHED = {
    "cls_v1_nc2": HeadConfig(version="v1", n_outputs=1),
    "cls_v1_nc5": HeadConfig(version="v1", n_outputs=5),
    "cls_v2_nc2": HeadConfig(version="v2", n_outputs=1),
    "cls_v2_nc5": HeadConfig(version="v2", n_outputs=5),
    "cls_v3_nc2": HeadConfig(version="v3", n_outputs=1, n_tokens=48, n_layers=2, n_heads=4),
    "reg_v1": HeadConfig(version="regression", n_outputs=1),
    "emb": HeadConfig(version="embedding", n_outputs=16),
}
AGE = TargetSpec(name="age", kind="regression", unit="years", mean=28.0, sd=4.0)
SITE = TargetSpec(name="site", kind="classification", classes=("A", "B", "C"))
SEX = TargetSpec(name="sex", kind="classification", classes=("female", "male"))


@pytest.fixture(scope="module")
def arrays(read_golden):
    return {
        name: torch.from_numpy(value).float()
        for name, value in read_golden("heads").items()
        if value.dtype.kind == "f"
    }


def load_head(name, arrays):
    """Build a published head with its weights; keys lose what stands before them in a file."""
    prefix = f"{name}.w." if name == "emb" else f"{name}.w.head."
    weights = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    head = build_head(PUBLISHED[name], 24).eval()
    if name == "emb":
        weights["bn1.num_batches_tracked"] = torch.tensor(0)
    head.load_state_dict(weights)
    return head


@pytest.mark.parametrize("recorded", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_head_equals_the_published_one(arrays, relative_error, name, recorded):
    with torch.set_grad_enabled(recorded):
        found = load_head(name, arrays)(arrays["x"])
    assert relative_error(found, arrays[f"{name}.out"]) < 1e-5


def test_an_embedding_in_training_equals_the_published_one(arrays, relative_error):
    head = load_head("emb", arrays).train()
    assert relative_error(head(arrays["x"]), arrays["emb.out_train"]) < 1e-5
    assert relative_error(head.bn1.running_mean, arrays["emb.running_mean_after"]) < 1e-5
    assert relative_error(head.bn1.running_var, arrays["emb.running_var_after"]) < 1e-5


def test_pooling_weighs_every_token_alike():
    x = torch.randn(2, 5, 3, 2, 1, 4)
    torch.testing.assert_close(pool_tokens(x), x.mean(dim=(2, 3, 4, 5)))


def test_probabilities_sum_to_one_and_keep_the_order_of_the_classes():
    probabilities = find_probabilities(torch.tensor([[0.0, 5.0, -5.0], [1.0, 1.0, 1.0]]), 3)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
    assert probabilities[0].argmax() == 1
    torch.testing.assert_close(probabilities[1], torch.full((3,), 1 / 3))


def test_one_logit_speaks_for_the_second_of_two_classes():
    logits = torch.tensor([[0.0], [3.0], [-50.0]])
    probabilities = read_outputs(logits, SEX)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(probabilities[:, 1:], torch.sigmoid(logits))
    assert probabilities[2, 1] > 0


def test_values_come_in_the_unit_of_the_target():
    z = torch.tensor([[0.0], [-1.5]])
    torch.testing.assert_close(read_outputs(z, AGE), torch.tensor([[28.0], [22.0]]))


def test_without_mean_and_deviation_values_stay_z_scores():
    z = torch.tensor([[0.0], [-1.5]])
    assert torch.equal(read_outputs(z, TargetSpec(name="age", kind="regression")), z)


@pytest.mark.parametrize(
    ("target", "shape"), [(SEX, (4, 2)), (SITE, (4, 2)), (SITE, (4, 1)), (AGE, (4, 2)), (AGE, (4,))]
)
def test_outputs_of_another_number_than_the_target_needs_are_refused(target, shape):
    with pytest.raises(DataError, match="Check that the target belongs to this model"):
        read_outputs(torch.zeros(shape), target)


def test_attention_heads_must_divide_the_channels():
    config = HeadConfig(version="v3", n_outputs=1, n_tokens=8, n_heads=5)
    with pytest.raises(DataError, match="expected a divisor of 24, found 5"):
        build_head(config, 24)
