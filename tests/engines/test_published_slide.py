"""Nuclei on a real H&E slide, against the steps and figures of the model's README."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from engines.base import open_engine
from engines.findings import Refusal, SlideAnalysis
from engines.importing import import_model
from tests.engines.published import ANSWERS, dice, session
from tests.factories import instance_files

Find = Callable[[str], Path]
MICROMETRES = 0.499


def test_the_models_own_pair_reproduces(shared: Find) -> None:
    folder = shared("models/nuclei_unet2d_broad")
    given, wanted = (np.load(folder / f"test_{name}.npy") for name in ("input", "output"))
    image = ((given - given.mean()) / given.std()).astype(np.float32)
    scores = session(folder / "weights.onnx").run(None, {"input.1": image})[0]
    assert np.abs(1 / (1 + np.exp(-scores)) - wanted).max() < 1e-4


def test_nuclei_are_those_of_the_readme(shared: Find, tmp_path: Path) -> None:
    """Haematoxylin, normalised over the tissue; tiles with a halo; 8 to 200 square micrometres."""
    model = shared("models/nuclei_unet2d_broad/weights.onnx")
    path = shared("data/wsm_cmu1/region.dcm")
    package = import_model(model, ANSWERS / "nuclei_unet2d_broad" / "engine.toml", tmp_path / "p")
    with open_engine(package, threads=2) as engine:
        outcome = engine.run(instance_files([path]))
    assert isinstance(outcome, SlideAnalysis), outcome
    (nuclei,) = outcome.findings
    tiles = dcmread(path).pixel_array.reshape(6, 6, 240, 240, 3)
    image = tiles.swapaxes(1, 2).reshape(1440, 1440, 3) / 255
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    absorbed = np.log(np.maximum(image, 1e-6)) / np.log(1e-6) @ np.linalg.inv(stains)
    blue = ndimage.gaussian_filter(np.maximum(absorbed[..., 0], 0), 1)
    saturation = np.ptp(image, axis=2) / np.maximum(image.max(axis=2), 1 / 255)
    tissue = ndimage.gaussian_filter(saturation, 1) > 0.05
    blue = (blue - blue[tissue].mean()) / blue[tissue].std()
    padded = np.pad(blue, ((32, 384), (32, 384)), mode="symmetric").astype(np.float32)
    found = np.zeros((1792, 1792), np.bool_)
    net = session(model)
    for row in range(0, 1440, 448):
        for column in range(0, 1440, 448):
            tile = padded[None, None, row : row + 512, column : column + 512]
            score = net.run(None, {"input.1": np.ascontiguousarray(tile)})[0][0, 0, 32:-32, 32:-32]
            found[row : row + 448, column : column + 448] = score > 0
    labels, count = ndimage.label(found[:1440, :1440] & tissue)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * MICROMETRES**2
    fits = (areas >= 8) & (areas <= 200)
    fits[0] = False
    assert abs(len(nuclei.polygons) - int(fits.sum())) <= 2
    assert dice(filled(nuclei.polygons), ndimage.binary_fill_holes(fits[labels])) >= 0.99
    measured = {item.name.value: item.value for item in nuclei.measurements}
    assert len(nuclei.polygons) == measured["COUNT"] == pytest.approx(667, rel=0.03)
    assert measured["PER_AREA"] == pytest.approx(1842, rel=0.03)
    assert measured["42798000"] == pytest.approx(29, rel=0.02)


def filled(polygons: tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], ...]) -> (
    np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
):  # fmt: skip
    """Draw polygons along the edges of pixels: a pixel is inside if its upper edges are odd."""
    edges = np.zeros((1441, 1441), np.int64)
    for polygon in polygons:
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y0 == y1:
                low, high = sorted((int(x0), int(x1)))
                edges[int(y0), low:high] += 1
    inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = np.cumsum(edges, axis=0) % 2 == 1
    return inside[:1440, :1440]


def test_an_overview_is_too_coarse_for_nuclei(shared: Find, tmp_path: Path) -> None:
    model = shared("models/nuclei_unet2d_broad/weights.onnx")
    (path,) = shared("data/wsm_cptac_brca").glob("*.dcm")
    package = import_model(model, ANSWERS / "nuclei_unet2d_broad" / "engine.toml", tmp_path / "p")
    with open_engine(package, threads=2) as engine:
        outcome = engine.run(instance_files([path]))
    assert isinstance(outcome, Refusal)
    assert outcome.reason.value == "PIXEL_SIZE"
    assert "15.8 micrometres" in outcome.detail
