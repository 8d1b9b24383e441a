"""Runs a net on an image in the pattern of its recipe, slab by slab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from engines.base import Session
from engines.errors import InferenceError, ModelInvalidError
from engines.recipe import Inference
from engines.resampling import Labels, Values
from engines.windows import Predict, Slab, blended, gaussian_weights, mirrored

MOST_CLASSES: Final = 256


def run_slabs(values: Values, inference: Inference, session: Session) -> Iterator[Slab]:
    """Yield scores [class, 0, 1, 2] of an image float32 [0, 1, 2], activated, slab by slab."""
    if inference.pattern == "slices":
        slabs = _slices(values, inference, session)
    elif inference.window is None:
        predict = mirrored(_predict(inference, session), inference.mirror)
        slabs = iter([(0, predict(values))])
    else:
        slabs = _windows(values, inference, session)
    for first, scores in slabs:
        yield first, activated(scores, inference.activation)


def activated(scores: Values, activation: str) -> Values:
    """Apply sigmoid, or softmax over axis 0, or nothing."""
    if activation == "sigmoid":
        with np.errstate(over="ignore"):
            found: Values = np.float32(1) / (np.float32(1) + np.exp(-scores))
            return found
    if activation == "softmax":
        powers = np.exp(scores - scores.max(axis=0))
        shares: Values = powers / powers.sum(axis=0)
        return shares
    return scores


def decide(scores: Values, inference: Inference) -> Labels:
    """Make labels of scores [class, ...].

    `argmax`: the class itself, so class 0 is nothing. `threshold`: one more than the class with
    the highest score, where that is above the threshold.
    """
    found: Labels = scores.argmax(axis=0).astype(np.uint8)
    if inference.decision == "argmax":
        return found
    above: Labels = np.where(scores.max(axis=0) > inference.threshold, found + np.uint8(1), 0)
    return above.astype(np.uint8)


def _slices(values: Values, inference: Inference, session: Session) -> Iterator[Slab]:
    """Run slices as a batch; what the batch has on axis 0 moves behind the classes."""

    def run(part: Values) -> Values:
        found: Values = np.moveaxis(_run(part[:, None], part.shape, inference, session), 1, 0)
        return found

    predict = mirrored(run, inference.mirror)
    for first in range(0, len(values), inference.slices_at_once):
        yield first, predict(values[first : first + inference.slices_at_once])


def _windows(values: Values, inference: Inference, session: Session) -> Iterator[Slab]:
    window = inference.window
    if window is None:
        raise ModelInvalidError("the recipe has no window")
    shape = values.shape
    grown = tuple(max(n, w) for n, w in zip(shape, window, strict=True))
    zero = inference.pad == "zero"
    before = [(n - m) // 2 if zero else 0 for n, m in zip(grown, shape, strict=True)]
    ends = [(a, n - m - a) for a, n, m in zip(before, grown, shape, strict=True)]
    padded = np.pad(values, ends, constant_values=0 if zero else values.min())
    weights = np.ones(window, np.float32)
    if inference.blend != "even":
        weights = gaussian_weights(window, on_voxel=inference.blend == "gaussian-on-voxel")
    predict = mirrored(_predict(inference, session), inference.mirror)
    even = inference.steps == "even"
    inner = [slice(a, a + n) for a, n in zip(before, shape, strict=True)]
    for first, scores in blended(padded, window, inference.overlap, weights, predict, even=even):
        begin = first - before[0]
        kept = scores[:, max(0, -begin) : max(0, shape[0] - begin), inner[1], inner[2]]
        if kept.shape[1]:
            yield max(0, begin), kept


def _predict(inference: Inference, session: Session) -> Predict:
    def predict(values: Values) -> Values:
        found: Values = _run(values[None, None], values.shape, inference, session)[0]
        return found

    return predict


def _run(
    tensor: Values, spatial: tuple[int, ...], inference: Inference, session: Session
) -> Values:
    """Run the net once and check what it gave: [batch, class, ...], finite, of the same size."""
    outputs = session.run({inference.input: np.ascontiguousarray(tensor, np.float32)})
    if inference.output not in outputs:
        raise ModelInvalidError(f"the model has no output {inference.output!r}")
    found = outputs[inference.output]
    batch, sizes = len(tensor), tensor.shape[2:]
    right = found.ndim == tensor.ndim and len(found) == batch and found.shape[2:] == sizes
    if not right or found.dtype.kind != "f" or not 1 <= found.shape[1] <= MOST_CLASSES:
        raise InferenceError(f"the model gave {found.dtype} {found.shape} for {spatial}")
    values: Values = found.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise InferenceError("the model gave values that are not finite")
    return values
