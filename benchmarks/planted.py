"""What a synthetic cohort has in it: people, images, and BOLD in which their traits show.

Nothing here reads or writes a file. A share of the signal is a change relative to its mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm.first_level import compute_regressor
from scipy.ndimage import gaussian_filter

from neurostorm_bids.synthetic import Template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neurostorm_bids.synthetic import Brain

SITES = ("A", "B", "C")
SITE_TILT = {"A": -0.03, "B": 0.0, "C": 0.03}
"""Change of brightness from the middle of the head to its front."""

N_NETWORKS = 8
VISUAL = (0, 1, 2)
SEX_PAIR = (4, 5)
DIAGNOSIS, MEMORY, AGE = 3, 6, 7

N_EMBEDDING = 6
AXES = [f"x{axis}" for axis in range(N_EMBEDDING)]
IMAGES_PER_RUN = 12
BLOCK_S, PERIOD_S = 14.0, 18.0
SLOW_HZ = (0.01, 0.1)

# Voxels coincide with those of a model's 24 x 24 x 24 grid, so that nothing is interpolated.
TEMPLATE = Template(
    space="MNI152NLin6Asym",
    affine=nib.affines.from_matvec(np.diag([-8.0, 8.0, 8.0]), [93, -127, -75]),
    shape=(23, 28, 23),
)


@dataclass(frozen=True, kw_only=True)
class CohortPlan:
    """Sizes of a cohort, and of what is planted in it; deviations are shares of the signal.

    Attributes
    ----------
    n_participants, n_sessions : each session has a run of rest and a run of blocks.
    repetition_time_s : seconds between volumes; a run lasts for its 12 blocks.
    fluctuation : deviation of a network of gain 1.
    gain_range : gains follow age, memory score and diagnosis from 1 - gain_range to 1 + gain_range.
    sex_correlation : of the pair of networks in women; in men the opposite.
    fingerprint : deviation of the fluctuations over a person's own pattern.
    response : of the visual networks to an image, whose embedding has length one.
    noise : deviation of each voxel's own noise.
    seed : of everything that is drawn.
    """

    n_participants: int = 40
    n_sessions: int = 2
    repetition_time_s: float = 2.0
    fluctuation: float = 0.05
    gain_range: float = 0.8
    sex_correlation: float = 0.9
    fingerprint: float = 0.03
    response: float = 0.08
    noise: float = 0.01
    seed: int = 0

    @property
    def n_volumes(self) -> int:
        """Volumes of a run."""
        return round(IMAGES_PER_RUN * PERIOD_S / self.repetition_time_s)


class Cohort(NamedTuple):
    """What is planted in all people.

    Attributes
    ----------
    participants : one row each, with every column that is planted, memory_score too.
    images : stim_file, trial_type and the embedding (x0, x1, ...) of every image.
    regions : (X, Y, Z) region of each voxel of `TEMPLATE`, -1 outside the brain. Region r is the
        left part of network r, region `N_NETWORKS` + r its right part.
    projection : (2 * len(VISUAL), N_EMBEDDING) from an image's embedding to the response of the
        visual networks' left parts, then right parts.
    """

    participants: pd.DataFrame
    images: pd.DataFrame
    regions: NDArray[np.int64]
    projection: NDArray[np.float64]


class Look(NamedTuple):
    """What all runs of a person share: mean signal and own pattern, both (n_voxels,)."""

    brightness: NDArray[np.float64]
    pattern: NDArray[np.float64]


def draw_cohort(plan: CohortPlan, brain: Brain, *, generator: np.random.Generator) -> Cohort:
    """Draw people and images."""
    projection, _ = np.linalg.qr(generator.standard_normal((2 * len(VISUAL), N_EMBEDDING)))
    return Cohort(
        participants=draw_participants(plan.n_participants, generator=generator),
        images=draw_images(plan.n_sessions * IMAGES_PER_RUN, generator=generator),
        regions=find_regions(brain.mask),
        projection=projection,
    )


def draw_participants(count: int, *, generator: np.random.Generator) -> pd.DataFrame:
    """Draw balanced columns, of many drafts the one in which columns go together least."""
    drafts = [_draft_participants(count, generator) for _ in range(500)]
    return min(drafts, key=find_largest_correlation)


def draw_images(count: int, *, generator: np.random.Generator) -> pd.DataFrame:
    """Draw image embeddings of length one, faces and places apart on the first axis."""
    category = np.resize(["face", "place"], count)
    embeddings = generator.standard_normal((count, N_EMBEDDING))
    embeddings[:, 0] = np.where(category == "face", 2.0, -2.0)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    table = pd.DataFrame(embeddings, columns=AXES)
    table.insert(0, "trial_type", category)
    table.insert(0, "stim_file", [f"{kind}s/{n:02d}.png" for n, kind in enumerate(category, 1)])
    return table


def find_regions(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Divide the brain (X, Y, Z) into quarters along Y, halves along Z, and left and right.

    In one quarter two networks take turns along Z, so that they have much border in common.
    """
    index = np.argwhere(mask)  # (n_voxels, 3)
    quarter = _find_quantile(index[:, 1], 4)
    half = np.empty_like(quarter)
    for one in range(4):
        n_slabs = 4 if 2 * one in SEX_PAIR else 2
        half[quarter == one] = _find_quantile(index[quarter == one, 2], n_slabs) % 2
    is_right = nib.affines.apply_affine(TEMPLATE.affine, index)[:, 0] > 0
    regions = np.full(mask.shape, -1)
    regions[mask] = 2 * quarter + half + N_NETWORKS * is_right
    return regions


def draw_look(person: Mapping[str, Any], brain: Brain, *, generator: np.random.Generator) -> Look:
    """Draw what all runs of a person share: the brightness of the site, and a smooth pattern."""
    y = np.argwhere(brain.mask)[:, 1]
    front = 2 * (y - y.min()) / np.ptp(y) - 1  # -1 at the back, 1 at the front
    tilt = 1 + SITE_TILT[person["site"]] * front
    pattern = gaussian_filter(generator.standard_normal(brain.mask.shape), sigma=2.0)[brain.mask]
    return Look(
        brightness=(200 + 0.1 * brain.anatomy[brain.mask]) * tilt,
        pattern=(pattern - pattern.mean()) / pattern.std(),
    )


def draw_courses(
    person: Mapping[str, Any], plan: CohortPlan, *, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the courses (regions, T) of a run at rest, as shares of the signal."""
    courses = _draw_slow(N_NETWORKS, plan, generator=generator)
    share = plan.sex_correlation * (1 if person["sex"] == "F" else -1)
    first, second = courses[list(SEX_PAIR)]
    courses[SEX_PAIR[1]] = share * first + np.sqrt(1 - share**2) * second
    courses[AGE] *= 1 + plan.gain_range * (person["age"] - 50) / 30
    courses[MEMORY] *= 1 + plan.gain_range * (person["memory_score"] - 15) / 15
    courses[DIAGNOSIS] *= 1 + plan.gain_range * (1 if person["diagnosis"] == "patient" else -1)
    return plan.fluctuation * np.tile(courses, (2, 1))


def draw_events(images: pd.DataFrame, *, generator: np.random.Generator) -> pd.DataFrame:
    """Draw the order in which a run shows its images; return it as a BIDS table of events."""
    order = generator.permutation(len(images))
    events = images.iloc[order][["trial_type", "stim_file"]].reset_index(drop=True)
    events.insert(0, "onset", np.arange(len(events)) * PERIOD_S)
    events.insert(1, "duration", BLOCK_S)
    return events


def add_responses(
    courses: NDArray[np.float64], events: pd.DataFrame, cohort: Cohort, plan: CohortPlan
) -> NDArray[np.float64]:
    """Return courses (regions, T) in which the visual networks respond to a run's images."""
    frame_times_s = np.arange(plan.n_volumes) * plan.repetition_time_s
    embeddings = cohort.images.set_index("stim_file").loc[events["stim_file"], AXES].to_numpy()
    courses = courses.copy()
    visual = [*VISUAL, *(N_NETWORKS + network for network in VISUAL)]
    for region, strength in zip(visual, cohort.projection @ embeddings.T, strict=True):
        blocks = np.stack([events["onset"], events["duration"], strength])
        response, _ = compute_regressor(blocks, "glover", frame_times_s)
        courses[region] += plan.response * response[:, 0]
    return courses


def draw_bold(
    courses: NDArray[np.float64],
    look: Look,
    regions: NDArray[np.int64],
    plan: CohortPlan,
    *,
    generator: np.random.Generator,
) -> NDArray[np.int16]:
    """Draw a run (X, Y, Z, T) from the courses (regions, T) of its regions."""
    mask = regions >= 0
    own = _draw_slow(1, plan, generator=generator)
    change = courses[regions[mask]] + plan.fingerprint * look.pattern[:, None] * own
    change += plan.noise * generator.standard_normal(change.shape)
    bold = np.zeros((*mask.shape, plan.n_volumes), dtype=np.int16)
    bold[mask] = np.rint(look.brightness[:, None] * (1 + change))
    return bold


def _draft_participants(count: int, generator: np.random.Generator) -> pd.DataFrame:
    def balance(*labels: str) -> NDArray[np.str_]:
        return generator.permutation(np.resize(labels, count))

    site, either = balance(*SITES), balance("clinic", "school")
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{number:02d}" for number in range(1, count + 1)],
            "age": generator.permutation(np.linspace(20, 80, count).round(1)),
            "sex": balance("F", "M"),
            "site": site,
            "diagnosis": balance("control", "patient"),
            "referral": np.select([site == "A", site == "C"], ["clinic", "school"], either),
            "memory_score": generator.permutation(np.linspace(0, 30, count).round(1)),
        }
    )


def find_largest_correlation(people: pd.DataFrame) -> float:
    """Return the largest correlation of two columns; referral follows the site and is left out."""
    columns = pd.get_dummies(people.drop(columns=["participant_id", "referral"]), dtype=float)
    kinds = np.array([name.split("_")[0] for name in columns])
    correlation = np.abs(np.corrcoef(columns.T))
    return float(correlation[kinds[:, None] != kinds].max())


def _find_quantile(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    edges = np.quantile(values, np.arange(1, count) / count)
    quantile: NDArray[np.int64] = np.searchsorted(edges, values)
    return quantile


def _draw_slow(
    count: int, plan: CohortPlan, *, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Draw slow courses (count, T), each with mean zero and deviation one."""
    spectrum = np.fft.rfft(generator.standard_normal((count, plan.n_volumes)))
    frequency_hz = np.fft.rfftfreq(plan.n_volumes, plan.repetition_time_s)
    spectrum[:, (frequency_hz < SLOW_HZ[0]) | (frequency_hz > SLOW_HZ[1])] = 0
    courses = np.fft.irfft(spectrum, plan.n_volumes)
    slow: NDArray[np.float64] = courses / courses.std(axis=1, keepdims=True)
    return slow
