"""What each model did with runs, gathered from the sidecars of its results."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from neurostorm_bids.report.steps import Step, merge_steps, read_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from neurostorm_bids.derivatives.results import Result


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """What one model did with runs; plain values, so that it can be kept as JSON.

    Attributes
    ----------
    model : name, source, checksum and format of the model's file.
    version : of this software.
    grid : the model's, as in the sidecars.
    clip : number of volumes in a clip, and its seconds.
    targets : what is predicted, by name.
    bounds : columns that a calibration added.
    spaces, datasets : of the runs.
    steps : of the preparation, with ranges in place of numbers.
    environment : versions by name.
    attributions : how and by which atlas.
    """

    model: tuple[str, str, str, str]
    version: str
    grid: dict[str, Any]
    clip: tuple[int, float]
    targets: dict[str, Any]
    bounds: tuple[str, ...]
    spaces: tuple[str, ...]
    datasets: tuple[str, ...]
    steps: tuple[Step, ...]
    environment: dict[str, str]
    attributions: tuple[tuple[str, str], ...]

    @property
    def key(self) -> tuple[object, ...]:
        """What procedures have in common that are told as one."""
        return self.model, self.version, str(self.grid), self.clip

    def join(self, other: Procedure) -> Procedure:
        """Return what both did; they have the same key."""
        return Procedure(
            model=self.model,
            version=self.version,
            grid=self.grid,
            clip=self.clip,
            targets={**self.targets, **other.targets},
            bounds=_unite(self.bounds, other.bounds),
            spaces=_unite(self.spaces, other.spaces),
            datasets=_unite(self.datasets, other.datasets),
            steps=tuple(merge_steps([self.steps, other.steps])),
            environment={**self.environment, **other.environment},
            attributions=_unite(self.attributions, other.attributions),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self) | {"steps": [list(step) for step in self.steps]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Procedure:
        """Read what `to_dict` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        found = {one.name: values[one.name] for one in fields(cls)}
        for name in ("model", "clip", "bounds", "spaces", "datasets"):
            found[name] = tuple(found[name])
        found["steps"] = tuple(
            Step(str(template), tuple(low), tuple(high)) for template, low, high in found["steps"]
        )
        found["attributions"] = tuple(
            (str(method), str(atlas)) for method, atlas in found["attributions"]
        )
        for name in ("grid", "targets", "environment"):
            found[name] = dict(found[name])
        return cls(**found)


def read_procedures(
    results: Iterable[Result], attributions: Iterable[Mapping[str, Any]] = ()
) -> list[Procedure]:
    """Gather what was done from the sidecars of results and of attributions."""
    made = [_read_procedure(result) for result in results]
    for sidecar in attributions:
        how = (str(sidecar.get("Method", "")), str(sidecar.get("Atlas", "")))
        made = [
            one.join(replace(one, attributions=(how,)))
            if one.model[2] == sidecar.get("ModelSHA256")
            else one
            for one in made
        ]
    return join_procedures(made)


def join_procedures(procedures: Iterable[Procedure]) -> list[Procedure]:
    """Make one of those with the same key; by the model's name."""
    joined: dict[tuple[object, ...], Procedure] = {}
    for one in procedures:
        known = joined.get(one.key)
        joined[one.key] = one if known is None else known.join(one)
    return sorted(joined.values(), key=lambda one: (one.model, one.version))


def _read_procedure(result: Result) -> Procedure:
    sidecar = result.sidecar
    environment = sidecar.get("SoftwareEnvironment")
    grid = sidecar.get("Grid")
    length = result.read_number("ClipLength")
    return Procedure(
        model=(
            result.model.name,
            str(sidecar.get("ModelSource", result.model.name)),
            result.model.sha256,
            str(sidecar.get("ModelFormat", "")),
        ),
        version=str(sidecar.get("SoftwareVersion", "of an unknown version")),
        grid=grid if isinstance(grid, dict) else {},
        clip=(int(length or 0), result.read_number("ClipDuration") or 0.0),
        targets={} if result.target is None else {result.target_name: result.target.to_dict()},
        bounds=tuple(
            name
            for name in ("interval_low", "prediction_set", "novelty")
            if isinstance(sidecar.get(name), dict)
        ),
        spaces=tuple(filter(None, [result.entities.get("space")])),
        datasets=tuple(filter(None, [result.dataset])),
        steps=tuple(merge_steps([[read_step(t) for t in result.list_texts("PreparationSteps")]])),
        environment=(
            {str(key): str(value) for key, value in environment.items()}
            if isinstance(environment, dict)
            else {}
        ),
        attributions=(),
    )


def _unite(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(sorted({*one, *other}))
