"""The scikit-learn transformer: its conventions, and that it gives what prediction gives."""

from __future__ import annotations

import json
import pickle
import warnings

import nibabel as nib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from neurostorm_bids.errors import MissingFileError, UsageError
from neurostorm_bids.estimator import NeurostormEmbedder
from neurostorm_bids.inputs import BoldRun, SourceDataset
from neurostorm_bids.predict import predict_run
from neurostorm_bids.pretrained import load_model

# Those of scikit-learn's checks that do not feed arrays of numbers.
CHECKS = (
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)


def make_image(seed):
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in (23, 28, 23)), indexing="ij")
    brain = (x**2 + y**2 + z**2 < 0.8)[..., None]
    bold = brain * (1000 + 30 * rng.standard_normal((23, 28, 23, 8)))
    affine = nib.affines.from_matvec(np.diag([-8.0, 8, 8]), [93, -127, -75])
    image = nib.Nifti1Image(bold.astype(np.float32), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((8, 8, 8, 0.8))
    return image


@pytest.fixture(scope="module")
def images():
    return [make_image(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def name(golden):
    return str(golden / "official_sex.ckpt")


@pytest.fixture
def embedder(name):
    return NeurostormEmbedder(name, device="cpu")


@pytest.fixture(scope="module")
def embeddings(name, images):
    return NeurostormEmbedder(name, device="cpu").fit_transform(images)


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_of_scikit_learn_passes(embedder, check):
    getattr(estimator_checks, check)("NeurostormEmbedder", embedder)


def test_scikit_learn_finds_nothing_else_to_check(embedder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        estimator_checks.check_estimator(embedder)


def test_embeddings_are_those_of_prediction(name, images, embeddings):
    model = load_model(name)
    expected = np.stack([predict_run(model, image).embedding for image in images])
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, expected)


def test_files_images_and_discovered_runs_give_the_same(tmp_path, embedder, images, embeddings):
    path = tmp_path / "sub-01_task-rest_space-S_desc-preproc_bold.nii.gz"
    nib.save(images[0], path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(
        json.dumps({"RepetitionTime": 0.8})
    )
    mask = nib.Nifti1Image((images[0].dataobj[..., 0] > 0).astype(np.uint8), images[0].affine)
    nib.save(mask, tmp_path / "mask.nii.gz")
    run = BoldRun(
        path=path,
        entities={"sub": "01", "task": "rest"},
        space="MNI152NLin6Asym",
        repetition_time_s=0.8,
        brain_mask=tmp_path / "mask.nii.gz",
        confounds=None,
        dataset=SourceDataset(name="d", path=tmp_path),
    )
    found = embedder.fit_transform([path, str(path), images[0], run])
    np.testing.assert_array_equal(found[:3], embeddings[[0, 0, 0]])
    expected = predict_run(load_model(embedder.model), path, run.brain_mask, 0.8).embedding
    np.testing.assert_array_equal(found[3], expected)


def test_the_order_of_runs_and_their_company_change_nothing(embedder, images, embeddings):
    found = embedder.fit(images).transform([images[2], images[0]])
    np.testing.assert_array_equal(found, embeddings[[2, 0]])


def test_fitting_again_changes_nothing_and_fitting_returns_the_estimator(
    embedder, images, embeddings
):
    assert embedder.fit(images) is embedder
    embedder.fit(images[:1], y=[1])
    np.testing.assert_array_equal(embedder.transform(images), embeddings)


def test_fitting_and_transforming_leave_parameters_and_state_alone(embedder, images):
    before = embedder.get_params()
    embedder.fit(images)
    state = set(vars(embedder))
    embedder.transform(images[:1])
    assert embedder.get_params() == before
    assert set(vars(embedder)) == state


def test_a_model_that_was_given_is_not_touched(name, images, embeddings):
    model = load_model(name)
    model.backbone.train()
    embedder = NeurostormEmbedder(model, device="cpu").fit(images)
    assert model.backbone.training
    assert not embedder.model_.backbone.training
    assert embedder.model is model
    np.testing.assert_array_equal(embedder.transform(images), embeddings)
    np.testing.assert_array_equal(clone(embedder).fit_transform(images[:1]), embeddings[:1])


def test_a_pickled_transformer_gives_the_same(embedder, images, embeddings):
    again = pickle.loads(pickle.dumps(embedder.fit(images)))
    np.testing.assert_array_equal(again.transform(images[:1]), embeddings[:1])


def test_before_fitting_there_is_nothing_to_transform_with(embedder, images):
    with pytest.raises(NotFittedError):
        embedder.transform(images)
    with pytest.raises(NotFittedError):
        embedder.get_feature_names_out()


def test_features_are_named_as_in_the_derivatives_and_go_into_a_table(embedder, images, embeddings):
    table = embedder.set_output(transform="pandas").fit_transform(images)
    assert list(table.columns) == list(embedder.get_feature_names_out())
    assert list(table.columns[:2]) == ["dim000", "dim001"]
    np.testing.assert_array_equal(table.to_numpy(), embeddings)


def test_a_pipeline_cross_validates_over_a_list_of_runs(embedder, images):
    pipeline = make_pipeline(embedder, Ridge())
    predicted = cross_val_predict(pipeline, images, [1.0, 2.0, 3.0, 4.0], cv=KFold(2))
    assert predicted.shape == (4,)
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("runs", ["one.nii.gz", [], 3])
def test_anything_but_a_list_of_runs_is_refused(embedder, runs):
    with pytest.raises(UsageError, match="Expected a list of one or more runs"):
        embedder.fit(runs)


def test_a_single_image_is_no_list(embedder, images):
    with pytest.raises(UsageError, match="Put a single run into a list"):
        embedder.fit(images[0])


def test_something_else_in_the_list_is_named(embedder, images):
    with pytest.raises(UsageError, match="found ndarray"):
        embedder.fit(images).transform([np.ones(3)])


def test_a_model_that_is_not_there_is_told_when_fitting(images):
    with pytest.raises(MissingFileError, match="nowhere"):
        NeurostormEmbedder("nowhere.ckpt").fit(images)
