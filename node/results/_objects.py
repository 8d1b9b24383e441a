"""A new object with what every IOD has, for kinds that the library has no class for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from engines.images import SourceFrame
from node.interfaces import ResultContext
from node.results import _encoding as encoding
from node.results import _explicit as explicit
from node.results._encoded_items import REFERENCED_INSTANCES, SERIES_INSTANCE_UID

PENDING: Final = "AI - PRELIMINARY - UNVERIFIED"
"""What is written on every picture."""


def new_object(
    context: ResultContext,
    place: encoding.Place,
    sop_class_uid: str,
    modality: str,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
) -> Dataset:
    """Make an object with study, series, equipment and SOP Common.

    Its writer fills the rest in and calls `complete_object` in the end.
    """
    arguments = dict(encoding.common_arguments(context, place))
    equipment = arguments.pop("contributing_equipment")
    made = SOPClass(
        study_instance_uid=context.sources[0].StudyInstanceUID,
        sop_class_uid=sop_class_uid,
        modality=modality,
        transfer_syntax_uid=transfer_syntax_uid,
        **arguments,  # type: ignore[arg-type]  # a typed dictionary less one of its keys
    )
    dataset = Dataset()
    dataset.update(made)
    dataset.file_meta = made.file_meta
    dataset.ContributingEquipmentSequence = equipment
    return dataset


def complete_object(dataset: Dataset, context: ResultContext, place: encoding.Place) -> None:
    """Settle what is left open, as for every result; and a laterality that nobody knows.

    Where no body part is named it may be a paired one: then the attribute has to be there (PS3.3
    C.7.3.1, VAL-01).
    """
    encoding.complete(dataset, context, place)
    if dataset.Modality in encoding.DOCUMENT_MODALITIES:
        return
    if "BodyPartExamined" not in dataset and "Laterality" not in dataset:
        dataset.Laterality = ""


def refer_to_instances(dataset: Dataset, instances: Iterable[Dataset]) -> None:
    """Name instances by series (PS3.3 C.12.2, OBJ-10). Nothing may look at the object after it."""
    by_series: dict[str, list[Dataset]] = {}
    for instance in instances:
        by_series.setdefault(str(instance.SeriesInstanceUID), []).append(instance)
    items = [
        explicit.item(
            explicit.sequence(REFERENCED_INSTANCES, explicit.references(of_series))
            + explicit.uid(SERIES_INSTANCE_UID, uid)
        )
        for uid, of_series in by_series.items()
    ]
    explicit.put_items(dataset, "ReferencedSeriesSequence", b"".join(items))


def referenced(frame: SourceFrame, *, numbered: bool = True) -> Dataset:
    """Refer to a frame; not `numbered`: to the whole of its instance (PS3.3 Table 10-3)."""
    item = Dataset()
    item.ReferencedSOPClassUID = frame.sop_class_uid
    item.ReferencedSOPInstanceUID = frame.sop_instance_uid
    if numbered and frame.frame is not None:
        item.ReferencedFrameNumber = frame.frame
    return item


def reference_to(instance: Dataset) -> Dataset:
    """Refer to an instance by its header."""
    item = Dataset()
    item.ReferencedSOPClassUID = instance.SOPClassUID
    item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return item
