"""What is planted in the synthetic cohort is found through the commands, and what is not is not.

Makes the cohort, pretrains a tiny encoder on it, and asks the finetune, participant and group
levels for what was planted: age, sex, a questionnaire's score, a diagnosis, who a run belongs to
across sessions, the task of a run, and the condition of a clip. Every question is asked a second
time of a control in which the truth was shuffled, and of more shuffles by `shuffles`; a target that
is only the site is asked too.

    python -m benchmarks.recovery [--short] [--folder CACHE] [--out FILE]

With a folder, what is there from an earlier call is not computed again. One process, one thread.
Every shuffle is taken as it is drawn; nothing was tuned on what is scored.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.cohort import write_cohort
from benchmarks.controls import (
    add_shuffled_columns,
    copy_with_exchanged_sessions,
    copy_with_shuffled_events,
    copy_with_shuffled_tasks,
    write_blocks,
)
from benchmarks.machine import describe_machine
from benchmarks.questions import FULL, HALF, REST, SHORT
from benchmarks.shuffles import exchange_sessions, make_options, shuffle_targets, summarise
from neurostorm_bids.cli import main as neurostorm

if TYPE_CHECKING:
    from benchmarks.questions import Plan, Question

MODEL, CONNECTIVITY, CONFOUNDS = "the model", "functional connectivity", "confounds only"
MEASURES = ("auroc", "r2")
ENCODER = Path("models", "tiny_mae_window-random")
PRETRAIN = ("--preset", "tiny", "--batch-size", "2", "--learning-rate", "2e-3")
ATLAS, PREPROCESSED = "blocks.nii.gz", Path("cohort", "derivatives", "fmriprep")
MADE = ("cohort", "events", "swapped", "work", "out", "controls", "embedded", "exchanged")
SEED = 1


def run(plan: Plan, folder: Path) -> dict[str, Any]:
    """Do all of a plan below a folder.

    Returns
    -------
    Rows (one per question, control and method), what many shuffles came to, and the command lines.
    """
    asked = _Asker(folder)
    prepare(plan, folder)
    weights = ENCODER / "model.safetensors"
    asked.call("cohort", "out", "pretrain", *PRETRAIN, *plan.pretrain, makes=weights)
    rows = []
    for question in plan.questions:
        rows += asked.finetune(question, is_control=False)
        if question.has_control:
            rows += asked.finetune(question, is_control=True)
    if plan.reidentifies:
        rows += asked.reidentify()
    return {"commands": asked.commands, "rows": rows, "shuffles": shuffle_all(plan, folder)}


def shuffle_all(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """Shuffle every target of a plan many times; return a row for each."""
    generator, rows = np.random.default_rng(SEED), []
    for question in plan.questions:
        if question.selection is not None:
            model = folder / "out" / ENCODER
            options = make_options(folder, model, question.target, question.selection)
            scores = shuffle_targets(options, plan.n_shuffles, generator=generator)
            rows.append(summarise(question.use, question.target, scores))
    if plan.reidentifies:
        given = (folder / "cohort", folder / "embedded", "2", plan.n_shuffles)
        scores = exchange_sessions(*given, generator=generator)
        rows.append(summarise("who is this", "participant", scores))
    return rows


def prepare(plan: Plan, folder: Path) -> None:
    """Write the cohort, its controls and an atlas, unless they are there."""
    done = folder / "cohort.json"
    if done.exists() and done.read_text(encoding="utf-8") == repr(plan):
        return
    for name in MADE:
        shutil.rmtree(folder / name, ignore_errors=True)
    raw = folder / "cohort"
    cohort = write_cohort(raw, plan.cohort)
    add_shuffled_columns(raw, seed=SEED)
    write_blocks(folder / ATLAS)
    if plan.n_swapped:
        copy_with_shuffled_events(raw, folder / "events", seed=SEED)
        people = cohort.participants["participant_id"].tolist()[: plan.n_swapped]
        sessions = [f"{label}/ses-1" for label in people]
        copy_with_shuffled_tasks(folder / PREPROCESSED, folder / "swapped", sessions, seed=SEED)
    done.write_text(repr(plan), encoding="utf-8")


class _Asker:
    """Calls the commands below a folder, and remembers them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []

    def call(
        self, raw: str, output: str, level: str, *options: str, makes: Path | None = None
    ) -> Path:
        """Call the command, unless what it makes is there; return the output folder."""
        given = [*options] if level == "group" else [*options, "--device", "cpu", "--nprocs", "1"]
        if level in {"pretrain", "finetune"}:
            given += ["--work-dir", str(self.folder / "work")]
        argv = [str(self.folder / raw), str(self.folder / output), level, *given]
        self.commands.append(" ".join(["neurostorm", *argv]).replace(f"{self.folder}{os.sep}", ""))
        place = self.folder / output
        is_there = makes is not None and (place / makes).exists()
        if not is_there and (status := neurostorm(argv)):
            raise SystemExit(f"Exit status {status} of: {self.commands[-1]}")
        return place

    def finetune(self, question: Question, *, is_control: bool) -> list[dict[str, Any]]:
        """Ask a question, or its control; return a row for each method."""
        target, raw, select = question.target, "cohort", question.select
        if is_control:
            target, raw = question.control or target, question.control_raw
            select = select if question.control_select is None else question.control_select
        options = ["--target", target, "--model", str(self.folder / "out" / ENCODER), *select]
        options += ["--atlas", str(self.folder / ATLAS)]
        if raw == "events":
            options += ["-d", f"fmriprep={self.folder / PREPROCESSED}"]
        if raw != "swapped":  # a dataset of derivatives alone has no table of sites
            options += ["--site-column", "site"]
        scores = Path("finetune", f"{target.replace('_', '-')}_linear", "scores.json")
        output = "controls" if is_control else "out"
        place = self.call(raw, output, "finetune", *options, makes=scores)
        return [
            _describe(question.use, question.target, one["name"], score, is_control=is_control)
            | {
                "n_participants": one["scores"]["n_participants"],
                "is_beaten_by_the_model": one["is_beaten_by_the_model"],
            }
            for one in json.loads((place / scores).read_text(encoding="utf-8"))["methods"]
            for score in one["scores"]["scores"]
            if score["name"] in MEASURES and one["name"] != "guess"
        ]

    def reidentify(self) -> list[dict[str, Any]]:
        """Look for people across sessions, then where second sessions have changed owners."""
        options = ["--model", str(self.folder / "out" / ENCODER), *REST, *HALF]
        output = self.call("cohort", "embedded", "participant", *options)
        if not (self.folder / "exchanged").exists():
            copy_with_exchanged_sessions(output, self.folder / "exchanged", "ses-2", seed=SEED)
        rows = []
        for name, is_control in (("embedded", False), ("exchanged", True)):
            place = self.call("cohort", name, "group", *REST)
            table = pd.read_csv(place / "group" / "reidentification.tsv", sep="\t")
            score = table.drop_duplicates("measure").set_index("measure").loc["rank1"]
            found = {"name": "rank1", **score[["value", "low", "high", "chance"]].to_dict()}
            rows.append(
                _describe("who is this", "participant", MODEL, found, is_control=is_control)
                | {"n_participants": int(score["n_participants"])}
            )
        return rows


def _describe(
    use: str, target: str, method: str, score: dict[str, Any], *, is_control: bool
) -> dict[str, Any]:
    """Return a row: a score beside its chance level, and whether it is above."""
    value, low, high, chance = (float(score[key]) for key in ("value", "low", "high", "chance"))
    return {
        "use": use,
        "target": target,
        "truth": "shuffled" if is_control else "planted",
        "method": method,
        "measure": score["name"],
        "value": round(value, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "chance": round(chance, 4),
        "is_above_chance": low > chance,
    }


def main(argv: list[str] | None = None) -> int:
    """Run a plan, write its figures and print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="24 people, age and site, a minute")
    parser.add_argument("--folder", type=Path, help="keep what is made, to go on from it")
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    given = parser.parse_args(argv)
    plan = SHORT if given.short else FULL
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        found = run(plan, folder)
    table = pd.DataFrame(found["rows"])
    if given.out:
        machine = describe_machine("scikit-learn", "nilearn")
        content = {"machine": machine, "threads": 1, **found}
        given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table.drop(columns="use").to_string(index=False))
    print(pd.DataFrame(found["shuffles"]).drop(columns="use").to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
