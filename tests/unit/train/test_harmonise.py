from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostorm_bids.train.harmonise import fit_combat

SITES = ["A"] * 60 + ["B"] * 40 + ["C"] * 20


def make_features(seed=0, n_features=30):
    rng = np.random.default_rng(seed)
    plain = rng.normal(5, 2, size=(120, n_features))
    shift = np.repeat([0.0, 3.0, -4.0], [60, 40, 20])[:, None] + rng.normal(size=n_features) * 0.1
    scale = np.repeat([1.0, 2.0, 0.5], [60, 40, 20])[:, None]
    return plain, (plain - 5) * scale + 5 + shift


def test_it_equals_neurocombat(golden):
    """Numbers were made with neuroCombat 0.2.12, which stops iterating earlier."""
    with np.load(golden / "combat.npz") as made:
        sites = made["site"].tolist()
        combat = fit_combat(made["features"], sites)
        cleaned = combat.remove(made["features"], sites).matrix
        expected = made["plain"]
    np.testing.assert_allclose(cleaned, expected, atol=1e-4)


def test_sites_have_the_same_level_and_spread_afterwards():
    _, features = make_features()
    cleaned = fit_combat(features, SITES).remove(features, SITES).matrix
    means = [cleaned[np.array(SITES) == site].mean() for site in "ABC"]
    spreads = [cleaned[np.array(SITES) == site].std(axis=0).mean() for site in "ABC"]
    assert np.ptp(means) < 0.3
    assert max(spreads) / min(spreads) < 1.15


def test_test_rows_are_harmonised_by_what_training_rows_showed():
    plain, features = make_features()
    rng = np.random.default_rng(1)
    is_train = rng.random(120) < 0.7
    sites = np.array(SITES)
    combat = fit_combat(features[is_train], sites[is_train])
    cleaned = combat.remove(features[~is_train], sites[~is_train]).matrix
    error = np.abs(cleaned - plain[~is_train]).mean()
    assert error < np.abs(features[~is_train] - plain[~is_train]).mean() / 2


def test_each_row_is_harmonised_by_itself():
    _, features = make_features()
    combat = fit_combat(features, SITES)
    alone = np.concatenate(
        [combat.remove(features[[row]], [SITES[row]]).matrix for row in range(120)]
    )
    np.testing.assert_allclose(alone, combat.remove(features, SITES).matrix)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(120)))
def test_the_order_of_rows_changes_nothing(order):
    _, features = make_features(n_features=4)
    shuffled = [SITES[row] for row in order]
    once = fit_combat(features, SITES)
    again = fit_combat(features[order], shuffled)
    np.testing.assert_allclose(again.shifts, once.shifts, atol=1e-9)
    np.testing.assert_allclose(again.scales, once.scales, atol=1e-9)


def test_rows_of_an_unseen_site_stay_as_they_are_and_that_is_told():
    _, features = make_features()
    combat = fit_combat(features, SITES)
    cleaned = combat.remove(features[:3], ["D", None, "A"])
    np.testing.assert_array_equal(cleaned.matrix[:2], features[:2])
    assert (cleaned.matrix[2] != features[2]).all()
    assert cleaned.notes == ("2 row(s) of sites that were not learnt (D, None) stay as they are.",)


def test_a_site_with_one_row_is_not_learnt():
    _, features = make_features()
    combat = fit_combat(features, [*SITES[:-1], "D"])
    assert combat.sites == ("A", "B", "C")
    assert combat.notes == ("Site D has 1 training row(s), too few to harmonise.",)


@pytest.mark.parametrize("sites", [["A"] * 120, [None] * 120])
def test_one_site_alone_changes_nothing(sites):
    _, features = make_features()
    combat = fit_combat(features, sites)
    np.testing.assert_array_equal(combat.remove(features, sites).matrix, features)
    assert "Fewer than two sites" in combat.notes[-1]


def test_constant_features_and_single_features_give_no_nan():
    _, features = make_features(n_features=3)
    features[:, 1] = 7.0
    features[:60, 2] = 1.0  # constant at one site
    cleaned = fit_combat(features, SITES).remove(features, SITES).matrix
    assert np.isfinite(cleaned).all()
    np.testing.assert_allclose(cleaned[:, 1], 7.0)
    alone = fit_combat(features[:, :1], SITES).remove(features[:, :1], SITES).matrix
    assert np.isfinite(alone).all()
    assert abs(alone[:60].mean() - alone[60:100].mean()) < 1e-9
