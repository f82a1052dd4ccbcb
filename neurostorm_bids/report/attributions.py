"""Pictures of attributions, drawn from the files that hold them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from neurostorm_bids.derivatives.attribution import name_map, read_map_atlas
from neurostorm_bids.errors import DataError
from neurostorm_bids.grid.planes import VIEWS, turn_to_ras
from neurostorm_bids.grid.read import open_volumes
from neurostorm_bids.inputs.declarations import parse_number
from neurostorm_bids.inputs.files import list_names, read_json_object
from neurostorm_bids.inputs.names import parse_name
from neurostorm_bids.inputs.tsv import read_tsv
from neurostorm_bids.page.figures import save_svg
from neurostorm_bids.report.montage import AXIAL, find_template_brain, plan_montage
from neurostorm_bids.report.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

MAX_VOXELS = 50_000_000
_WIDTH_IN = 9.0
_N_REGIONS = 12
_MAX_NAME = 34
_HIGH, _LOW = "#b03a00", "#0060a8"
_OUR_ENTITIES = {"atlas", "res", "seg", "desc"}


class AttributionFiles(NamedTuple):
    """The files of one attribution of a run; the map may be absent."""

    name: str
    atlas: str
    table: Path
    sidecar: Path
    image: Path | None


def find_attributions(folder: Path, entities: Mapping[str, str]) -> Iterator[AttributionFiles]:
    """Find what was attributed of a run, in the folder of its tables.

    Parameters
    ----------
    entities : of the run's BOLD file.
    """

    def own(name: str) -> dict[str, str]:
        parts = parse_name(name)
        found = {} if parts is None else dict(parts.entities)
        return found if _reduce(found) == _reduce(entities) else {}

    names = list_names(folder) if folder.is_dir() else []
    images = {
        own(name).get("desc", ""): folder / name
        for name in names
        if name.endswith("Attribution_bold.nii.gz")
    }
    for name in names:
        found = own(name) if name.endswith("_attribution.tsv") else {}
        if "desc" in found:
            table, desc, atlas = folder / name, found["desc"], found.get("atlas", "")
            image = _choose_map(images, desc=desc, atlas=atlas)
            yield AttributionFiles(desc, atlas, table, table.with_suffix(".json"), image)


def _choose_map(images: Mapping[str, Path], *, desc: str, atlas: str) -> Path | None:
    """Return the map that belongs to a table; the one of all names may be of another atlas."""
    own, plain = images.get(name_map(desc, atlas)), images.get(name_map(desc))
    if own is not None or plain is None:
        return own
    sidecar = plain.with_name(f"{plain.name.removesuffix('.nii.gz')}.json")
    return plain if read_map_atlas(sidecar) in {None, atlas} else None


def draw_attribution(files: AttributionFiles) -> Picture:
    """Draw the strongest regions and, where there is a map, where they lie.

    Raises
    ------
    DataError, MissingFileError, ReadError
        If a file cannot be read, or is not what its name says.
    """
    regions = _read_regions(files.table)
    sidecar = read_json_object(files.sidecar)
    volume = None if files.image is None else _read_map(files.image)
    height = 0.22 * len(regions) + 0.7
    figure = Figure(figsize=(_WIDTH_IN, height + (0 if volume is None else 4.0)))
    unit = str(sidecar.get("Units") or "")
    total = figure.get_figheight()
    axes = figure.add_axes((0.34, 0.5 / total, 0.6, (height - 0.6) / total))
    _draw_regions(axes, regions, unit)
    if volume is not None and files.image is not None:
        name = parse_name(files.image.name)
        space = "" if name is None else name.entities.get("space", "")
        _draw_map(figure, *volume, space=space, bottom=height / total)
    strongest = ", ".join(name for name, _ in regions[:3])
    told = sidecar.get("Description")
    return Picture(
        kind=f"{files.name}Attribution{files.atlas}",
        title=f"Attribution: {files.name}, by the regions of {files.atlas}",
        extension=".svg",
        content=save_svg(figure),
        alt=f"The {len(regions)} regions with the largest attributions, as bars"
        + ("" if volume is None else "; above them projections and slices of the attribution map")
        + f". The strongest: {strongest}.",
        caption=f"{told if isinstance(told, str) else ''} The bars are the regions with the "
        "largest numbers, of either sign: orange raises what is attributed, blue lowers it."
        + (
            ""
            if volume is None
            else " Above: the strongest number along the line of sight, from the side, from "
            "behind and from above, and axial slices; L is left. "
        )
        + " What drives a model is no proof of what the brain does: motion, anatomy and "
        "the scanner can drive it too.",
    )


def _reduce(entities: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in entities.items() if key not in _OUR_ENTITIES}


def _read_regions(table: Path) -> list[tuple[str, float]]:
    """Read the regions with the largest numbers, the largest first."""
    columns = read_tsv(table, columns=("index", "name", "attribution")).columns
    if not {"name", "attribution"} <= columns.keys():
        raise DataError(f"Expected columns name and attribution in {table.name}; found others.")
    numbers = [parse_number(cell) for cell in columns["attribution"]]
    pairs = [
        (name, number)
        for name, number in zip(columns["name"], numbers, strict=True)
        if number is not None
    ]
    if not pairs:
        raise DataError(f"Expected a number for some region in {table.name}; found none.")
    return sorted(pairs, key=lambda pair: -abs(pair[1]))[:_N_REGIONS]


def _read_map(path: Path) -> tuple[Floats, NDArray[np.float64]]:
    """Read a map: the volume in RAS+ and its affine."""
    image = open_volumes(path)
    if math.prod(image.shape) > MAX_VOXELS or image.n_volumes != 1:
        raise DataError(
            f"Expected one map of at most {MAX_VOXELS} voxels in {path.name}; found "
            f"{image.n_volumes} of {image.shape}."
        )
    (values,) = image.read()
    volume = np.nan_to_num(values.astype(np.float32)).reshape(image.shape, order="F")
    return turn_to_ras(volume, image.affine)


def _draw_regions(axes: Axes, regions: list[tuple[str, float]], unit: str) -> None:
    names = [name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…" for name, _ in regions]
    values = [value for _, value in regions]
    places = range(len(values))
    axes.barh(places, values, color=[_HIGH if value > 0 else _LOW for value in values])
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(f"attribution ({unit})" if unit else "attribution", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_map(
    figure: Figure, volume: Floats, affine: NDArray[np.float64], *, space: str, bottom: float
) -> None:
    """Draw projections along three axes, and slices below them."""
    template = find_template_brain(space, volume.shape, affine)
    brain = volume != 0 if template is None else template
    if not brain.any():
        brain = np.ones(volume.shape, dtype=np.bool_)
    high = float(np.abs(volume).max()) or 1.0
    plan = plan_montage(brain, affine, AXIAL, n_tiles=7, n_columns=7)
    room = (1 - bottom) * figure.get_figheight()
    slices_in = min(0.45 * room, _WIDTH_IN * plan.height_per_width)
    foot = bottom + (slices_in + 0.05) / figure.get_figheight()
    image = _draw_projections(figure, volume, brain, affine, high=high, bottom=foot)
    axes = figure.add_axes((0, bottom, 1, slices_in / figure.get_figheight()))
    _show(axes, plan.lay(np.where(brain, volume, np.nan), background=np.nan), high)
    outlines = plan.lay(brain.astype(np.float32), background=0)
    axes.contour(outlines, levels=[0.5], colors="black", linewidths=0.5)
    plan.write_labels(axes, colour="black")
    place = figure.add_axes((0.93, foot + 0.2 * (1 - foot), 0.012, 0.6 * (1 - foot)))
    figure.colorbar(image, cax=place).ax.tick_params(labelsize=7)


def _draw_projections(
    figure: Figure,
    volume: Floats,
    brain: NDArray[np.bool_],
    affine: NDArray[np.float64],
    *,
    high: float,
    bottom: float,
) -> AxesImage:
    """Draw the strongest number along each axis, with the outline of the brain."""
    sides = np.linalg.norm(affine[:3, :3], axis=0) * volume.shape
    room = (1 - bottom) * figure.get_figheight()
    width = sum(float(sides[view.right]) for view in VIEWS)
    inches = min(0.85 * _WIDTH_IN / width, room / max(float(sides[view.up]) for view in VIEWS))
    left = 0.02
    drawn = []
    for view in VIEWS:
        size = float(sides[view.right]) * inches, float(sides[view.up]) * inches
        place = left, bottom, size[0] / _WIDTH_IN, size[1] / figure.get_figheight()
        axes = figure.add_axes(place)
        seen = np.asarray(brain.any(axis=view.through)).T[::-1]
        projected = _project(volume, view.through)[::-1]
        drawn.append(_show(axes, np.where(seen, projected, np.nan), high))
        axes.contour(seen.astype(np.float32), levels=[0.5], colors="black", linewidths=0.8)
        for x, side, text in zip((0.02, 0.98), ("left", "right"), view.ends[:2], strict=True):
            axes.text(x, 0.98, text, transform=axes.transAxes, ha=side, va="top", fontsize=8)
        left += size[0] / _WIDTH_IN + 0.01
    return drawn[0]


def _project(volume: Floats, axis: int) -> Floats:
    """Return the number of the largest size along an axis, as rows upwards."""
    largest = np.abs(volume).argmax(axis=axis, keepdims=True)
    projected: Floats = np.take_along_axis(volume, largest, axis=axis).squeeze(axis).T
    return projected


def _show(axes: Axes, pixels: Floats, high: float) -> AxesImage:
    axes.set_axis_off()
    colours = colormaps["RdBu_r"].with_extremes(bad="white")
    return axes.imshow(
        pixels, cmap=colours, vmin=-high, vmax=high, interpolation="none", aspect="auto"
    )
