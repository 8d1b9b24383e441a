"""The transforms before the net of a MONAI bundle, one after another, as a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from pydantic import JsonValue

from engines.errors import PackageError

WHERE: Final = "inference.json"
NOTHING: Final = frozenset(
    {"LoadImage", "EnsureChannelFirst", "EnsureType", "ToDevice", "CastToType"}
)
"""Transforms that read, or order what is in order here."""
HARMLESS: Final = frozenset(
    {"_target_", "keys", "allow_missing_keys", "image_only", "dtype", "track_meta", "data_type",
     "device", "channel_dim", "meta_keys", "channel_wise", "start_coord_key", "end_coord_key"}
)  # fmt: skip
MODES: Final = {"bilinear": "linear", "trilinear": "linear", "nearest": "nearest"}

Item: TypeAlias = Mapping[str, JsonValue]
Table: TypeAlias = dict[str, JsonValue]


def preprocessing_of(transforms: list[Item]) -> Table:
    """Return the table `recipe.preprocessing`.

    Raises:
        PackageError: naming the transform, or its argument, that cannot be carried over.
    """
    table: Table = {}
    steps: list[JsonValue] = []
    for item in transforms:
        name = named(item)
        if name in NOTHING:
            continue
        if name in PLACES:
            if steps or (name == "Orientation" and table):
                raise PackageError(f"{WHERE}: {name}d: comes later than it is read")
            table |= PLACES[name](item)
        elif name in VALUES:
            steps += VALUES[name](item)
        else:
            raise PackageError(f"{WHERE}: preprocessing: {name or 'a transform'} is not read")
    return {**table, "intensity": steps}


def named(item: Item) -> str:
    """Return the name of a transform without its module and the d of dictionaries."""
    return str(item.get("_target_", "")).rpartition(".")[2].removesuffix("d")


def only(item: Item, known: set[str]) -> None:
    """Refuse an argument that is not known, or is code, which is never run.

    Raises:
        PackageError: naming it.
    """
    for key, value in item.items():
        code = isinstance(value, str) and value.startswith(("$", "@"))
        if key not in HARMLESS and (key not in known or code):
            raise PackageError(f"{WHERE}: {named(item)}d.{key}: {value} is not read")


def _orientation(item: Item) -> Table:
    only(item, {"axcodes", "labels", "as_closest_canonical"})
    canonical = item.get("as_closest_canonical")
    return {"orientation": "RAS" if canonical else str(item.get("axcodes", ""))}


def _spacing(item: Item) -> Table:
    only(item, {"pixdim", "mode", "padding_mode", "diagonal", "align_corners", "scale_extent"})
    _refuse(item, diagonal=False, align_corners=False, scale_extent=False, padding_mode="border")
    spacing = _three(item, "pixdim")
    return {"spacing": spacing, "anchor": "first", "interpolation": _mode(item, "bilinear")}


def _resized(item: Item) -> Table:
    only(item, {"spatial_size", "mode", "align_corners", "size_mode", "anti_aliasing"})
    _refuse(item, align_corners=False, size_mode="all", anti_aliasing=False)
    if _mode(item, "area") == "nearest":
        raise PackageError(f"{WHERE}: Resized.mode: nearest is not read")
    shape: list[JsonValue] = [int(str(value)) for value in _three(item, "spatial_size")]
    return {"shape": shape, "interpolation": "linear"}


def _range(item: Item) -> list[JsonValue]:
    only(item, {"a_min", "a_max", "b_min", "b_max", "clip"})
    low, high = _number(item, "a_min"), _number(item, "a_max")
    bottom, top = _number(item, "b_min", 0.0), _number(item, "b_max", 1.0)
    if high <= low or top <= bottom:
        raise PackageError(f"{WHERE}: ScaleIntensityRanged: a range has no width")
    clip: list[JsonValue] = []
    if item.get("clip"):
        clip = [{"step": "clip", "low": low, "high": high}]
    factor = (high - low) / (top - bottom)
    return [*clip, {"step": "linear", "subtract": low - bottom * factor, "divide": factor}]


def _normalised(item: Item) -> list[JsonValue]:
    only(item, {"nonzero", "subtrahend", "divisor"})
    if item.get("subtrahend") is not None or item.get("divisor") is not None:
        _refuse(item, nonzero=False)
        less, by = _number(item, "subtrahend"), _number(item, "divisor")
        return [{"step": "linear", "subtract": less, "divide": by}]
    if item.get("nonzero"):
        return [{"step": "normalise", "of": "nonzero", "keep_zero": True}]
    return [{"step": "normalise"}]


def _scaled(item: Item) -> list[JsonValue]:
    only(item, {"minv", "maxv", "factor"})
    _refuse(item, minv=0.0, maxv=1.0, factor=None)
    return [{"step": "quantiles", "low": 0.0, "high": 1.0}]


def _percentiles(item: Item) -> list[JsonValue]:
    only(item, {"lower", "upper", "b_min", "b_max", "clip", "relative"})
    _refuse(item, relative=False, b_min=0.0)
    low, high = _number(item, "lower") / 100, _number(item, "upper") / 100
    top, clip = _number(item, "b_max", 1.0), bool(item.get("clip"))
    return [{"step": "quantiles", "low": low, "high": high, "top": top, "clip": clip}]


def _foreground(item: Item) -> list[JsonValue]:
    only(item, {"source_key", "margin", "k_divisible", "allow_smaller"})
    _refuse(item, k_divisible=1)
    margin = item.get("margin", 0)
    if not isinstance(margin, int) or (margin and not item.get("allow_smaller")):
        raise PackageError(f"{WHERE}: CropForegroundd.margin: is read with allow_smaller only")
    return [{"step": "crop", "above": 0.0, "margin": margin}]


PLACES: Final[Mapping[str, Callable[[Item], Table]]] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "Resize": _resized,
}
VALUES: Final[Mapping[str, Callable[[Item], list[JsonValue]]]] = {
    "ScaleIntensityRange": _range,
    "NormalizeIntensity": _normalised,
    "ScaleIntensity": _scaled,
    "ScaleIntensityRangePercentiles": _percentiles,
    "CropForeground": _foreground,
}


def _refuse(item: Item, **wanted: JsonValue) -> None:
    """Refuse arguments that say another thing than what is read."""
    for key, value in wanted.items():
        if item.get(key, value) not in (value, None):
            raise PackageError(f"{WHERE}: {named(item)}d.{key}: {item[key]} is not read")


def _mode(item: Item, default: str) -> str:
    said = item.get("mode", default)
    mode = str(said[0] if isinstance(said, list) and said else said)
    if mode not in MODES:
        raise PackageError(f"{WHERE}: {named(item)}d.mode: {mode} is not read")
    return MODES[mode]


def _three(item: Item, key: str) -> list[JsonValue]:
    value = item.get(key)
    if isinstance(value, list) and len(value) == 3:  # noqa: PLR2004 - three axes
        numbers = [item for item in value if isinstance(item, int | float) and item > 0]
        if len(numbers) == len(value):
            return [*numbers]
    raise PackageError(f"{WHERE}: {named(item)}d.{key}: is not three numbers above 0")


def _number(item: Item, key: str, default: float | None = None) -> float:
    value = item.get(key, default)
    if not isinstance(value, int | float):
        raise PackageError(f"{WHERE}: {named(item)}d.{key}: is no number")
    return float(value)
