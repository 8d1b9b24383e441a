"""Our own check of required attributes, from the IOD tables that highdicom carries; offline.

It knows what every mandatory module asks for (Type 1: there and not empty; Type 2: there), to any
depth. What hangs on conditions, the functional groups and the content tree are not in it: they are
compared with the outcome by each writer's `check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias, cast

from highdicom import _standard_utils as standard
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from node.interfaces import ResultError

TYPE_1_MISSING: Final = "Type 1 missing"
TYPE_2_MISSING: Final = "Type 2 missing"
CONDITION_DRIVEN: Final = ("segmentation-multi-frame-functional-groups", "sr-document-content")

_Node: TypeAlias = Mapping[str, object]


def require_attributes(
    dataset: Dataset, *, also: Sequence[str] = (), walked: Sequence[str] = ()
) -> None:
    """Check an object against its IOD. `also` names conditional modules that it must have.

    `walked` names sequences of the top level whose items are checked elsewhere.

    Raises:
        ResultError: naming every attribute that is missing or empty.
    """
    faults = sorted(set(missing_attributes(dataset, also=also, walked=walked)))
    if faults:
        raise ResultError("required attributes: " + "; ".join(faults))


def missing_attributes(
    dataset: Dataset, *, also: Sequence[str] = (), walked: Sequence[str] = ()
) -> Iterator[str]:
    """Yield what an object lacks of its IOD (PS3.3 A), as "path: what is wrong"."""
    iod = standard.get_sop_class_iod_map().get(str(dataset.SOPClassUID))
    if iod is None:
        yield f"SOPClassUID: no IOD is known for {dataset.SOPClassUID}"
        return
    for module in standard.get_iod_module_map()[iod]:
        key = module["key"]
        if key not in CONDITION_DRIVEN and (module["usage"] == "M" or key in also):
            yield from _walk(dataset, standard.construct_module_tree(key), key, walked)


def module_faults(dataset: Dataset, module: str) -> Iterator[str]:
    """Yield what a data set lacks of one module, as "module/keyword...: what is wrong"."""
    yield from _walk(dataset, standard.construct_module_tree(module), module)


def _walk(dataset: Dataset, tree: _Node, path: str, walked: Sequence[str] = ()) -> Iterator[str]:
    attributes = cast("Mapping[str, _Node]", tree["attributes"])
    for keyword, node in attributes.items():
        place = f"{path}/{keyword}"
        fault = _fault(dataset, keyword, cast("standard.AttributeTypeValues", node["type"]).value)
        if fault:
            yield f"{place}: {fault}"
        if keyword in walked:
            continue
        if "attributes" in node and isinstance(dataset.get(keyword), Items):
            for item in dataset[keyword].value:
                yield from _walk(item, node, place)


def _fault(dataset: Dataset, keyword: str, attribute_type: str) -> str:
    if keyword not in dataset:
        return {"1": TYPE_1_MISSING, "2": TYPE_2_MISSING}.get(attribute_type, "")
    if attribute_type in ("1", "1C") and _is_empty(dataset, keyword):
        return f"Type {attribute_type} empty"
    return ""


def _is_empty(dataset: Dataset, keyword: str) -> bool:
    element = dataset.get_item(keyword)
    if isinstance(element, RawDataElement) and element.VR == "SQ":
        return not element.value  # its items need not be read for that
    return dataset[keyword].is_empty
