from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from neurostorm_bids.errors import DataError
from neurostorm_bids.model.backbone import Backbone
from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetSpec, _count_parameters

PUBLISHED = ModelConfig.published()
AGE = TargetSpec(name="age", kind="regression", unit="years", mean=28.8, sd=3.7)
SEX = TargetSpec(name="sex", kind="classification", classes=("female", "male"))
TRANSFORMER = HeadConfig(version="v3", n_outputs=1, n_tokens=48)


@pytest.mark.parametrize("config", [PUBLISHED, TRANSFORMER, AGE, SEX], ids=type)
def test_reading_undoes_writing_through_json(config):
    values = json.loads(json.dumps(config.to_dict()))
    assert type(config).from_dict(values) == config


@pytest.mark.parametrize("config", [PUBLISHED, TRANSFORMER, AGE], ids=type)
def test_a_value_without_meaning_is_refused(config):
    with pytest.raises(DataError, match=r"unexpected \['colour'\]"):
        type(config).from_dict(config.to_dict() | {"colour": "red"})


def test_a_missing_value_without_default_is_refused():
    values = PUBLISHED.to_dict()
    del values["last_layer_full_msa"]
    with pytest.raises(DataError, match=r"missing \['last_layer_full_msa'\]"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize("values", [None, [1, 2], "sizes"])
def test_what_names_no_values_is_refused(values):
    with pytest.raises(DataError, match="expected named values"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("img_size", [96, 96, 96]),
        ("img_size", [96, 96, 96, 20.0]),
        ("img_size", 96),
        ("img_size", [96, 96, 96, -20]),
        ("embed_dim", "36"),
        ("embed_dim", True),
        ("embed_dim", 0),
        ("depths", []),
        ("depths", None),
        ("window_size", [4, 4, 4, 0]),
        ("last_layer_full_msa", 1),
        ("drop_path_rate", float("nan")),
        ("drop_path_rate", 1.5),
        ("prompt_len", -1),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(name, value):
    with pytest.raises(DataError, match=f"as {name}, found"):
        ModelConfig.from_dict(PUBLISHED.to_dict() | {name: value})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"depths": [2]}, "2 to 8 stages"),
        ({"patch_size": [6, 6, 6, 2]}, "spans one volume"),
        ({"img_size": [90, 96, 96, 20]}, "multiple of"),
        ({"img_size": [4080, 4080, 4080, 4096]}, "values in a clip;"),
        ({"patch_size": [1, 1, 1, 1]}, "values in a clip's tokens"),
        ({"embed_dim": 1000}, "parameters"),
        ({"embed_dim": 256, "c_multiplier": 8}, "parameters"),
    ],
)
def test_sizes_that_do_not_fit_or_ask_for_too_much_are_refused(changes, reason):
    with pytest.raises(DataError, match=reason):
        ModelConfig.from_dict(PUBLISHED.to_dict() | changes)


def test_the_published_model_has_its_published_size():
    assert _count_parameters(PUBLISHED) == 5_173_020
    assert PUBLISHED.n_features == 288
    assert PUBLISHED.clip_length == 20


@pytest.mark.parametrize(
    "changes",
    [{}, {"prompt_len": 3}, {"c_multiplier": 3, "expand": 3}, {"in_chans": 2, "d_conv": 3}],
)
def test_parameters_are_counted_as_the_backbone_has_them(tiny_config, changes):
    config = dataclasses.replace(tiny_config, **changes)
    n_parameters = sum(parameter.numel() for parameter in Backbone(config).parameters())
    assert _count_parameters(config) == n_parameters


def test_the_first_stage_and_a_full_last_stage_have_windows_of_their_own(tiny_config):
    windows = [tiny_config.stage_window(stage) for stage in range(3)]
    assert windows == [(4, 4, 4, 2), (2, 2, 2, 2), (2, 2, 2, 2)]
    wide = dataclasses.replace(tiny_config, window_size=(1, 1, 1, 2))
    assert wide.stage_window(2) == (2, 2, 2, 2)
    assert not wide.is_shifted(2, 1)
    assert wide.is_shifted(1, 1)
    assert not wide.is_shifted(1, 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "v4"}, "one of v1, v2, v3"),
        ({"version": ["v1"]}, "one of v1, v2, v3"),
        ({"n_outputs": 0}, "as n_outputs"),
        ({"version": "v3", "n_tokens": 0}, "as n_tokens"),
        ({"n_heads": 10**6}, "as n_heads"),
    ],
)
def test_a_head_that_cannot_be_is_refused(changes, reason):
    values = HeadConfig(version="v1", n_outputs=1).to_dict()
    with pytest.raises(DataError, match=reason):
        HeadConfig.from_dict(values | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": ""}, "needs a name"),
        ({"kind": "survival"}, "one of classification, regression"),
        ({"classes": ["male"]}, "has no classes"),
        ({"sd": None}, "go together"),
        ({"sd": 0}, "must not be 0"),
        ({"sd": -1.0}, "as sd"),
        ({"mean": "28"}, "as mean"),
        ({"unit": 3}, "as unit"),
    ],
)
def test_a_regression_target_that_cannot_be_is_refused(changes, reason):
    with pytest.raises(DataError, match=reason):
        TargetSpec.from_dict(AGE.to_dict() | changes)


@pytest.mark.parametrize("classes", [[], ["male"], ["male", "male"], "male", [1, 2]])
def test_classes_must_be_two_or_more_different_names(classes):
    with pytest.raises(DataError, match="two or more different class names"):
        TargetSpec.from_dict(SEX.to_dict() | {"classes": classes})


def test_classes_have_no_unit():
    with pytest.raises(DataError, match="no unit"):
        TargetSpec.from_dict(SEX.to_dict() | {"unit": "years"})


def test_a_target_says_how_many_numbers_it_predicts():
    assert SEX.n_outputs == 2
    assert AGE.n_outputs == 1


def test_configurations_are_read_without_torch():
    code = "import sys, neurostorm_bids.model.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_whole_number_that_no_float_can_hold_is_refused():
    with pytest.raises(DataError, match="finite number"):
        TargetSpec(name="age", kind="regression", mean=10**400, sd=1.0)
