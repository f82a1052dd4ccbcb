from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from neurostorm_bids.errors import DataError, OutputError, TemporaryError, UsageError
from neurostorm_bids.train.files import read_table, read_weights
from neurostorm_bids.train.step import Loss


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def terminate(loss):
    os.kill(os.getpid(), signal.SIGTERM)
    return loss


def die(_loss):
    raise KeyboardInterrupt


def read_tables(folder):
    return [(folder / name).read_bytes() for name in ("training.csv", "validation.csv")]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """Return the folder, result and model of a training that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *tiny.train(folder, dropout=0.2)


def test_a_training_lowers_the_loss_on_participants_it_never_learned_from(tiny, tmp_path):
    result, _ = tiny.train(tmp_path, max_steps=60)
    losses = [row["loss"] for row in result.validation]
    assert result.best_loss == min(losses) < losses[0]


def test_the_result_holds_every_update_and_evaluation(whole):
    _, result, _ = whole
    assert [row["step"] for row in result.training] == list(range(1, 13))
    assert [row["step"] for row in result.validation] == [0, 5, 10, 12]
    assert {"loss", "largest", "gradient_norm", "learning_rate"} < result.training[0].keys()
    assert result.best_loss == min(row["loss"] for row in result.validation)


def test_the_seed_decides_everything(tiny, whole, tmp_path):
    _, _, model = whole
    _, again = tiny.train(tmp_path / "again", dropout=0.2)
    assert_same(again.state_dict(), model.state_dict())
    _, other = tiny.train(tmp_path / "other", dropout=0.2, seed=8)
    assert not torch.equal(other.encode.weight, model.encode.weight)


@pytest.mark.parametrize("at", [4, 8, 20])
def test_a_training_that_was_asked_to_end_goes_on_as_if_it_had_not(tiny, whole, tmp_path, at):
    # Calls 1 and 2 evaluate, 3 to 7 learn, 8 and 9 evaluate, …; 20 evaluates for the last time.
    folder, result, model = whole
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    objective = tiny.Meddle(tiny.Reconstruct(), at, terminate)
    with pytest.raises(TemporaryError, match="goes on from there") as caught:
        tiny.train(tmp_path, dropout=0.2, objective=objective)
    assert caught.value.exit_status == 75
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    resumed, again = tiny.train(tmp_path, dropout=0.2)
    assert_same(again.state_dict(), model.state_dict())
    assert read_tables(tmp_path) == read_tables(folder)
    assert (resumed.best_step, resumed.best_loss) == (result.best_step, result.best_loss)


def test_a_training_that_died_between_checkpoints_goes_on_as_if_it_had_not(tiny, whole, tmp_path):
    folder, _, model = whole
    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path, dropout=0.2, objective=tiny.Meddle(tiny.Reconstruct(), 12, die))
    assert read_table(tmp_path / "training.csv")[-1]["step"] > 4
    _, again = tiny.train(tmp_path, dropout=0.2)
    assert_same(again.state_dict(), model.state_dict())
    assert read_tables(tmp_path) == read_tables(folder)


def test_a_finished_training_is_not_repeated(tiny, whole):
    folder, result, model = whole
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    untouched = tiny.Meddle(tiny.Reconstruct(), 10**9, None)
    again, restored = tiny.train(folder, dropout=0.2, objective=untouched)
    assert untouched.n_calls == 0
    assert again == result
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert_same(restored.state_dict(), model.state_dict())


IMPATIENT = {"max_steps": 60, "evaluate_every": 2, "patience": 3, "learning_rate": 1.0}


@pytest.fixture(scope="module")
def given_up(tiny, tmp_path_factory):
    """Return the folder, result and model of a training that patience ended."""
    folder = tmp_path_factory.mktemp("given-up")
    return folder, *tiny.train(folder, dropout=0.2, **IMPATIENT)


def test_a_training_ends_when_evaluations_are_no_better_for_too_long(tiny, given_up, tmp_path):
    _, result, _ = given_up
    losses = [row["loss"] for row in result.validation]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 3
    assert result.n_steps == result.validation[-1]["step"] == result.training[-1]["step"] < 60
    assert result.best_step == result.validation[best]["step"]
    assert "3 evaluations in a row were no better" in result.describe_end()
    patient, _ = tiny.train(tmp_path, dropout=0.2, **{**IMPATIENT, "patience": 0})
    assert (patient.n_steps, patient.n_planned) == (60, 60)
    assert patient.training[: result.n_steps] == result.training


@pytest.mark.parametrize("from_the_end", [1, 4, 9])
@pytest.mark.parametrize("action", [terminate, die])
def test_a_training_that_was_interrupted_loses_patience_after_the_same_update(
    tiny, given_up, tmp_path, from_the_end, action
):
    folder, result, model = given_up
    n_calls = result.n_steps + 2 * len(result.validation)
    objective = tiny.Meddle(tiny.Reconstruct(), n_calls - from_the_end, action)
    with pytest.raises((TemporaryError, KeyboardInterrupt)):
        tiny.train(tmp_path, dropout=0.2, objective=objective, **IMPATIENT)
    resumed, again = tiny.train(tmp_path, dropout=0.2, **IMPATIENT)
    assert resumed == result
    assert_same(again.state_dict(), model.state_dict())
    for name in ("best.ckpt", "last.ckpt"):
        assert_same(read_weights(tmp_path / name), read_weights(folder / name))
    assert read_tables(tmp_path) == read_tables(folder)


def test_a_training_that_patience_ended_is_not_repeated_but_more_patience_goes_on(
    tiny, given_up, tmp_path
):
    folder, result, _ = given_up
    untouched = tiny.Meddle(tiny.Reconstruct(), 10**9, None)
    again, _ = tiny.train(folder, dropout=0.2, objective=untouched, **IMPATIENT)
    assert untouched.n_calls == 0
    assert again == result
    tiny.train(tmp_path / "parts", dropout=0.2, **IMPATIENT)
    later, model = tiny.train(tmp_path / "parts", dropout=0.2, **{**IMPATIENT, "patience": 5})
    once, same = tiny.train(tmp_path / "once", dropout=0.2, **{**IMPATIENT, "patience": 5})
    assert later == once
    assert_same(model.state_dict(), same.state_dict())


def test_other_settings_do_not_go_on_with_a_training(tiny, whole):
    folder, _, _ = whole
    with pytest.raises(UsageError, match=r"learning_rate was 0\.01, now 0\.02"):
        tiny.train(folder, dropout=0.2, learning_rate=0.02)
    with pytest.raises(UsageError, match="n_steps was 12, now 13"):
        tiny.train(folder, dropout=0.2, max_steps=13)
    with pytest.raises(UsageError, match="training_data was"):
        tiny.train(folder, dropout=0.2, runs=tiny.make_runs([1, 2]))


def test_micro_batches_add_up_to_the_batch(tiny, tmp_path):
    whole, one = tiny.train(tmp_path / "whole")
    parts, many = tiny.train(tmp_path / "parts", micro_batch_size=3)  # two parts of 2
    for name in ("training", "validation"):
        losses = [[row["loss"] for row in getattr(result, name)] for result in (whole, parts)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch.allclose(one.encode.weight, many.encode.weight, atol=1e-5)


def test_when_memory_runs_out_smaller_micro_batches_make_the_same_update(tiny, tmp_path, caplog):
    plain, model = tiny.train(tmp_path / "plain")
    torch.manual_seed(7)  # as the training does
    crowded = tiny.Crowded(tiny.TinyModel(), room=1)
    with caplog.at_level("WARNING", logger="neurostorm_bids"):
        result, _ = tiny.train(tmp_path / "crowded", model=crowded)
    assert result.micro_batch_size == 1
    assert "Out of memory with 4 sample(s)" in caplog.text
    assert "going on with 1" in caplog.text
    losses = [[row["loss"] for row in one.training] for one in (plain, result)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch.allclose(model.encode.weight, crowded.model.encode.weight, atol=1e-5)


def test_without_room_for_one_sample_the_training_ends_for_now(tiny, tmp_path):
    with pytest.raises(TemporaryError, match="ran out of memory with 1 sample"):
        tiny.train(tmp_path, model=tiny.Crowded(tiny.TinyModel(), room=0))


def test_memory_is_not_saved_below_what_the_objective_needs(tiny, tmp_path):
    objective = tiny.Reconstruct()
    objective.min_samples = 2
    with pytest.raises(TemporaryError, match="ran out of memory with 2 sample"):
        tiny.train(tmp_path, objective=objective, model=tiny.Crowded(tiny.TinyModel(), room=1))
    with pytest.raises(UsageError, match="at least 2 samples at once"):
        tiny.train(tmp_path, objective=objective, micro_batch_size=1)


def test_a_loss_that_is_not_a_number_ends_the_training_with_the_samples_named(tiny, tmp_path):
    def spoil(loss):
        return Loss(loss.value * float("nan"), loss.parts)

    objective = tiny.Meddle(tiny.Reconstruct(), 5, spoil)  # the third update
    with pytest.raises(DataError, match="finite loss"):
        tiny.train(tmp_path, objective=objective)
    facts = json.loads((tmp_path / "bad_batch.json").read_text())
    assert (facts["part"], facts["updates_before"]) == ("training", 2)
    order = tiny.make_dataset(tiny.make_runs(range(1, 5))).order
    assert facts["samples"] == [order[position].describe() for position in range(8, 12)]
    assert len(read_table(tmp_path / "training.csv")) == 2


def test_gradients_that_are_not_numbers_never_reach_the_weights(tiny, tmp_path):
    def spoil(loss):
        # The root of 0 is 0, and its slope infinite.
        return Loss(loss.value + (loss.value * 0).sqrt(), loss.parts)

    model = tiny.TinyModel()
    with pytest.raises(DataError, match="gradient_norm"):
        tiny.train(tmp_path, model=model, objective=tiny.Meddle(tiny.Reconstruct(), 3, spoil))
    assert all(p.isfinite().all() for p in model.parameters())


def test_no_participant_is_trained_on_and_evaluated_on(tiny, tmp_path):
    with pytest.raises(UsageError, match="found in both: 5"):
        tiny.train(tmp_path, runs=tiny.make_runs([4, 5]))


def test_the_best_weights_are_kept_under_their_own_names(tiny, whole):
    folder, result, _ = whole
    fresh = tiny.TinyModel()
    fresh.load_state_dict(read_weights(folder / "best.ckpt"))
    assert result.best_step in {row["step"] for row in result.validation}
    last = read_weights(folder / "last.ckpt")
    assert torch.equal(fresh.encode.weight, last["encode.weight"]) == (result.best_step == 12)


def test_the_moving_average_is_what_is_evaluated_and_exported(tiny, tmp_path):
    plain, model = tiny.train(tmp_path / "plain")
    result, averaged = tiny.train(tmp_path / "average", ema_decay=0.9)
    assert [row["loss"] for row in result.training] == [row["loss"] for row in plain.training]
    assert_same(averaged.state_dict(), model.state_dict())
    assert result.validation[-1]["loss"] != plain.validation[-1]["loss"]
    exported = read_weights(tmp_path / "average" / "last.ckpt")
    assert not torch.equal(exported["encode.weight"], model.encode.weight)
    assert torch.equal(exported["frozen"], model.frozen)


def test_the_moving_average_survives_a_kill_and_a_signal_in_an_evaluation(tiny, tmp_path):
    tiny.train(tmp_path / "whole", ema_decay=0.9)
    for at, action in ((8, terminate), (8, die)):
        objective = tiny.Meddle(tiny.Reconstruct(), at, action)
        with pytest.raises((KeyboardInterrupt, TemporaryError)):
            tiny.train(tmp_path / "parts", ema_decay=0.9, objective=objective)
    tiny.train(tmp_path / "parts", ema_decay=0.9)
    assert_same(
        read_weights(tmp_path / "parts" / "last.ckpt"),
        read_weights(tmp_path / "whole" / "last.ckpt"),
    )
    assert read_tables(tmp_path / "parts") == read_tables(tmp_path / "whole")


def test_a_training_in_bfloat16_keeps_its_weights_in_float32(tiny, tmp_path):
    result, model = tiny.train(tmp_path, precision="bf16-mixed")
    assert model.encode.weight.dtype == torch.float32
    assert result.training[-1]["loss"] < result.training[0]["loss"]


@pytest.mark.parametrize(
    ("changes", "rel"),
    [({"activation_checkpointing": True}, 1e-5), ({"precision": "bf16-mixed"}, 0.1)],
)
def test_real_networks_learn_the_same_in_less_memory(tiny, tmp_path, changes, rel):
    plain, _ = tiny.train_jointly(tmp_path / "plain", max_steps=3)
    lean, _ = tiny.train_jointly(tmp_path / "lean", max_steps=3, **changes)
    losses = [[row["mae"] for row in result.training] for result in (plain, lean)]
    assert losses[0] == pytest.approx(losses[1], rel=rel)


def test_tensorboard_gets_losses_and_speed(whole):
    folder, result, _ = whole
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert {"training/loss", "training/clips_per_s", "validation/loss"} <= set(
        events.Tags()["scalars"]
    )
    steps = [event.step for event in events.Scalars("validation/loss")]
    assert steps == [row["step"] for row in result.validation]


def test_a_full_disk_says_so_and_leaves_the_last_checkpoint(tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path, objective=tiny.Meddle(tiny.Reconstruct(), 12, die))
    before = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / ".last.ckpt.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"last\.ckpt: No space left"):
        tiny.train(tmp_path)
    assert (tmp_path / "last.ckpt").read_bytes() == before
