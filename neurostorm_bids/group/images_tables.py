"""Tables of image retrieval: over all people, and of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neurostorm_bids.derivatives.tables import Column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neurostorm_bids.group.images import ImagesFound, Variant
    from neurostorm_bids.train.scores import Score

_LEVELS = {
    "design": {
        "within": "The map was fitted on other sessions or runs of the same person.",
        "across": "The map was fitted on other sessions or runs of other people.",
    },
    "training": {
        "all": "On all clips of these.",
        "unseen": "Without the clips that show an image which is looked for.",
    },
    "direction": {
        "forward": "Given what a brain did, the image among all images of the test.",
        "backward": "Given an image, the response among all responses of the test.",
    },
}
_DESCRIPTIONS = {
    "participant_id": "The participant's label, as in the source dataset.",
    "model": "Name of the model.",
    "model_sha256": "Checksum of the model.",
    "design": "Whose runs the map from embeddings to images was fitted on.",
    "training": "Which clips of these runs.",
    "direction": "What is looked for.",
    "measure": "rank1 and rank5: share found first, or among the first five; "
    "mean_average_precision: mean of 1 / rank; median_rank: mean over participants of the median.",
    "value": "The measure.",
    "low": "Lower end of the 95 % bootstrap interval over participants; n/a for one.",
    "high": "Upper end of the 95 % bootstrap interval over participants; n/a for one.",
    "chance": "Value that a random order has.",
    "n_participants": "Participants tested.",
    "n_candidates": "Images that the right one is looked for among.",
    "n_images": "Different images that were looked for.",
    "n_seen": "How many of them somebody's map was fitted on too.",
}
_OF_ONE = {
    "low": "Lower end of the 95 % bootstrap interval over the participant's images.",
    "high": "Upper end of the 95 % bootstrap interval over the participant's images.",
}


def tabulate_images(found: Sequence[ImagesFound]) -> list[Column]:
    """Return a row for each model, way of fitting, direction and measure."""
    rows = [
        {
            **_identify(one, variant),
            "direction": direction,
            **_spell(score),
            "n_participants": scores.n_participants,
            "n_candidates": scores.n_candidates,
            "n_images": variant.outcome.n_images,
            "n_seen": variant.outcome.n_seen,
        }
        for one in found
        for variant in one.variants
        for direction, scores in variant.outcome.list_directions()
        for score in scores.scores
    ]
    return _describe(rows, _DESCRIPTIONS)


def tabulate_images_by_participant(found: Sequence[ImagesFound]) -> list[Column]:
    """Return a row for each participant, model, way of fitting, direction and measure."""
    rows = [
        {
            "participant_id": f"sub-{own['participant_id']}",
            **_identify(one, variant),
            "direction": own["direction"],
            "measure": score.name,
            "value": own[score.name],
            **{end: own[f"{score.name}_{end}"] for end in ("low", "high", "chance")},
            "n_candidates": own["n_candidates"],
            "n_images": own["n_images"],
        }
        for one in found
        for variant in one.variants
        for own in variant.outcome.by_participant.to_dict("records")
        for score in variant.outcome.forward.scores
    ]
    return _describe(rows, _DESCRIPTIONS | _OF_ONE)


def _identify(one: ImagesFound, variant: Variant) -> dict[str, str]:
    return {
        "model": one.model.name,
        "model_sha256": one.model.sha256,
        "design": variant.design,
        "training": variant.training,
    }


def _spell(score: Score) -> dict[str, Any]:
    names = {"measure": score.name, "value": score.value, "low": score.low}
    return {**names, "high": score.high, "chance": score.chance}


def _describe(rows: Sequence[Mapping[str, Any]], descriptions: Mapping[str, str]) -> list[Column]:
    return [
        Column(
            name=name,
            cells=[row[name] for row in rows],
            description=descriptions[name],
            levels=_LEVELS.get(name),
        )
        for name in (rows[0] if rows else ())
    ]
