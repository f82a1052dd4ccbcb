"""What is planted in the synthetic cohort is found through the commands, and what is not is not.

Makes the cohort, pretrains a tiny encoder on it, and asks the finetune, participant and group
levels for what was planted: age, sex, a questionnaire's score, a diagnosis, who a run belongs to
across sessions, the task of a run, and the condition of a clip. Every question is asked a second
time of a control in which the truth was shuffled; a target that is only the site is asked too.

    python -m benchmarks.recovery [--short] [--folder CACHE] [--out FILE]

With a folder, what is there from an earlier call is not computed again. One process, one thread.
The shuffles were drawn without looking at a model; nothing was tuned on what is scored.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.cohort import write_cohort
from benchmarks.controls import (
    SHUFFLED,
    add_shuffled_columns,
    copy_with_exchanged_sessions,
    copy_with_shuffled_events,
    copy_with_shuffled_tasks,
    write_blocks,
)
from benchmarks.machine import describe_machine
from benchmarks.planted import CohortPlan
from neurostorm_bids.cli import main as neurostorm

MODEL, CONNECTIVITY, CONFOUNDS = "the model", "functional connectivity", "confounds only"
MEASURES = ("auroc", "r2")
ENCODER = Path("models", "tiny_mae_window-random")
PRETRAIN = ("--preset", "tiny", "--batch-size", "2", "--learning-rate", "2e-3")
SESSION_1, REST = ("--session-id", "1"), ("--task-id", "rest")
SEED = 1


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of the finetune level.

    Attributes
    ----------
    use : what it stands for.
    target : as `--target` takes it.
    select : options that say which runs are read.
    control : the target whose truth was shuffled; None for the same one, read from `control_raw`.
    control_raw : the dataset that the control is read from, below the working folder.
    control_select : as `select`, of the control; None for the same.
    has_control : whether the control is asked for.
    """

    use: str
    target: str
    select: tuple[str, ...] = REST
    control: str | None = None
    control_raw: str = "cohort"
    control_select: tuple[str, ...] | None = None
    has_control: bool = True


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is done.

    Attributes
    ----------
    cohort : its sizes.
    pretrain : options of the pretraining.
    questions : of the finetune level.
    n_swapped : participants whose tasks are shuffled.
    reidentifies : whether people are looked for across sessions.
    """

    cohort: CohortPlan = field(default_factory=CohortPlan)
    pretrain: tuple[str, ...]
    questions: tuple[Question, ...]
    n_swapped: int = 0
    reidentifies: bool = False


def _ask(use: str, target: str) -> Question:
    return Question(use=use, target=target, control=f"{target}{SHUFFLED}")


AGE = _ask("age and sex", "age")
SITE_ONLY = _ask("only the site", "referral")
HALF = ("--participant-label", *(f"{number:02d}" for number in range(1, 21)))
FULL = Plan(
    pretrain=("--max-steps", "400", "--evaluate-every", "200"),
    questions=(
        AGE,
        _ask("age and sex", "sex"),
        _ask("any phenotype", "memory_score"),
        _ask("diagnosis", "diagnosis"),
        Question(
            use="task or state",
            target="task",
            select=SESSION_1,
            control_raw="swapped",
            control_select=(),
        ),
        Question(
            use="task or state",
            target="trial_type",
            select=("--task-id", "blocks", *SESSION_1, *HALF),
            control_raw="events",
        ),
        SITE_ONLY,
    ),
    n_swapped=20,
    reidentifies=True,
)
SHORT = Plan(
    cohort=CohortPlan(n_participants=24, n_sessions=1),
    pretrain=(
        *("--max-steps", "4", "--evaluate-every", "4"),
        *("--participant-label", "01", "02", "03", *REST),
    ),
    questions=(AGE, replace(SITE_ONLY, has_control=False)),
)


def run(plan: Plan, folder: Path) -> dict[str, Any]:
    """Do all of a plan below a folder.

    Returns
    -------
    Rows (one per question, control and method), and the command lines that made them.
    """
    asked = _Asker(folder)
    prepare(plan, folder)
    asked.call("cohort", "out", "pretrain", *PRETRAIN, *plan.pretrain)
    rows = []
    for question in plan.questions:
        rows += asked.finetune(question, is_control=False)
        if question.has_control:
            rows += asked.finetune(question, is_control=True)
    if plan.reidentifies:
        rows += asked.reidentify()
    return {"commands": asked.commands, "rows": rows}


def prepare(plan: Plan, folder: Path) -> None:
    """Write the cohort, its controls and an atlas, unless they are there."""
    done = folder / "cohort.json"
    if done.exists() and done.read_text(encoding="utf-8") == repr(plan):
        return
    for name in ("cohort", "events", "swapped", "out", "work", "exchanged"):
        shutil.rmtree(folder / name, ignore_errors=True)
    raw = folder / "cohort"
    cohort = write_cohort(raw, plan.cohort)
    add_shuffled_columns(raw, seed=SEED)
    write_blocks(folder / "blocks.nii.gz")
    if plan.n_swapped:
        copy_with_shuffled_events(raw, folder / "events", seed=SEED)
        people = cohort.participants["participant_id"].tolist()[: plan.n_swapped]
        copy_with_shuffled_tasks(
            raw / "derivatives" / "fmriprep", folder / "swapped", people, seed=SEED
        )
    done.write_text(repr(plan), encoding="utf-8")


class _Asker:
    """Calls the commands below a folder, and remembers them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []

    def call(self, raw: str, output: str, level: str, *options: str) -> Path:
        """Call the command; return the output folder."""
        fixed = [*options, "--device", "cpu", "--nprocs", "1"] if level != "group" else [*options]
        if level in {"pretrain", "finetune"}:
            fixed += ["--work-dir", str(self.folder / "work")]
        paths = [str(self.folder / raw), str(self.folder / output)]
        told = " ".join(["neurostorm", *paths, level, *fixed])
        self.commands.append(told.replace(f"{self.folder}{os.sep}", ""))
        status = neurostorm([*paths, level, *fixed])
        if status:
            raise SystemExit(f"Exit status {status} of: {self.commands[-1]}")
        return self.folder / output

    def finetune(self, question: Question, *, is_control: bool) -> list[dict[str, Any]]:
        """Ask a question, or its control; return a row for each method."""
        target, raw, select = question.target, "cohort", question.select
        if is_control:
            target, raw = question.control or target, question.control_raw
            select = select if question.control_select is None else question.control_select
        output = "controls" if is_control else "out"
        options = ["--target", target, "--model", str(self.folder / "out" / ENCODER), *select]
        options += ["--atlas", str(self.folder / "blocks.nii.gz")]
        if raw == "events":
            options += ["-d", f"fmriprep={self.folder / 'cohort' / 'derivatives' / 'fmriprep'}"]
        if raw != "swapped":  # a dataset of derivatives alone has no table of sites
            options += ["--site-column", "site"]
        place = self.call(raw, output, "finetune", *options)
        path = place / "finetune" / f"{target.replace('_', '-')}_linear" / "scores.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        return [
            _describe(question.use, question.target, one["name"], score, is_control=is_control)
            | {
                "n_participants": one["scores"]["n_participants"],
                "is_beaten_by_the_model": one["is_beaten_by_the_model"],
            }
            for one in found["methods"]
            for score in one["scores"]["scores"]
            if score["name"] in MEASURES and one["name"] != "guess"
        ]

    def reidentify(self) -> list[dict[str, Any]]:
        """Look for people across sessions, then where second sessions have changed owners."""
        output = self.call(
            "cohort", "out", "participant", "--model", str(self.folder / "out" / ENCODER), *REST
        )
        shutil.rmtree(self.folder / "exchanged", ignore_errors=True)
        copy_with_exchanged_sessions(output, self.folder / "exchanged", "ses-2")
        rows = []
        for name, is_control in (("out", False), ("exchanged", True)):
            place = self.call("cohort", name, "group", *REST)
            table = pd.read_csv(place / "group" / "reidentification.tsv", sep="\t")
            score = table[table["measure"] == "rank1"].iloc[0].to_dict()
            score["name"] = score["measure"]
            row = _describe("who is this", "participant", MODEL, score, is_control=is_control)
            rows.append(row | {"n_participants": int(score["n_participants"])})
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
