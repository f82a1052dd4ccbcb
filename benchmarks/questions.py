"""What is asked of a synthetic cohort: which targets, of which runs, and beside which controls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from benchmarks.controls import SHUFFLED
from benchmarks.planted import CohortPlan
from neurostorm_bids.inputs import Selection

SESSION_1, REST = ("--session-id", "1"), ("--task-id", "rest")


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
    selection : as `select`, for many shuffles of the target in `shuffles`; None for none.
    """

    use: str
    target: str
    select: tuple[str, ...] = REST
    control: str | None = None
    control_raw: str = "cohort"
    control_select: tuple[str, ...] | None = None
    has_control: bool = True
    selection: Selection | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is done.

    Attributes
    ----------
    cohort : its sizes.
    pretrain : options of the pretraining.
    questions : of the finetune level.
    n_swapped : participants whose tasks are shuffled.
    reidentifies : whether the first 20 people are looked for across sessions.
    n_shuffles : of every target with a selection, and of whose the second sessions are.
    """

    cohort: CohortPlan = field(default_factory=CohortPlan)
    pretrain: tuple[str, ...]
    questions: tuple[Question, ...]
    n_swapped: int = 0
    reidentifies: bool = False
    n_shuffles: int = 20


def _ask(use: str, target: str) -> Question:
    return Question(use=use, target=target, control=f"{target}{SHUFFLED}")


# Shuffled, one column of numbers is like another, and so is one of two classes.
MANY = Selection(task_ids=("rest",), session_ids=("1",))
AGE = replace(_ask("age and sex", "age"), selection=MANY)
SITE_ONLY = _ask("only the site", "referral")
HALF = ("--participant-label", *(f"{number:02d}" for number in range(1, 21)))
FULL = Plan(
    pretrain=("--max-steps", "400", "--evaluate-every", "200"),
    questions=(
        AGE,
        replace(_ask("age and sex", "sex"), selection=MANY),
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
    n_swapped=12,
    reidentifies=True,
)
SHORT = Plan(
    cohort=CohortPlan(n_participants=24, n_sessions=1),
    pretrain=(
        *("--max-steps", "4", "--evaluate-every", "4"),
        *("--participant-label", "01", "02", "03", *REST),
    ),
    questions=(AGE, replace(SITE_ONLY, has_control=False, selection=None)),
)
