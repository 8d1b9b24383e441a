"""What it costs to read a received CT series back as a volume, beside other ways to do it.

`python deploy/bench/reading.py` makes 300 slices of 512 x 512, as files and in one pack, and reads
them in each way, in turns, each in a process of its own with the page cache warm. It prints CPU and
wall time, the rise of the peak memory, and the CPU time as a ratio to pydicom's of the same round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # before this folder's engines.py

from engines.images import InstanceFile
from engines.series import load_volume, read_series, stack_series

Results: TypeAlias = dict[str, list[dict[str, float]]]
ROWS: Final = 512
FRAME: Final = ROWS * ROWS * 2
PADDING: Final = -2000
BASE: Final = "pydicom, files"
ITK: Final = "SimpleITK, files"


# ------------------------------------------------------------------ the series


def make_series(folder: Path, slices: int, *, padded: bool) -> None:
    """Write the slices as files and in one pack, with an index of both."""
    generator = np.random.default_rng(1)
    noise = generator.integers(0, 4096, (ROWS + slices, ROWS), dtype=np.int16)
    series, frame_of_reference = generate_uid(), generate_uid()
    index = []
    with (folder / "pack").open("wb") as pack:
        for number in generator.permutation(slices):
            values = noise[number : number + ROWS].copy()
            if padded:
                values[:8] = PADDING
            dataset = slice_of(values, int(number), padded=padded)
            dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series, frame_of_reference
            path = folder / f"{number:04d}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            content = path.read_bytes()
            pack.write(b"a note of what comes next")
            index.append([str(path), pack.tell(), len(content), dataset.SOPInstanceUID])
            pack.write(content)
    (folder / "index.json").write_text(json.dumps(index))


def slice_of(values: np.ndarray[Any, np.dtype[np.int16]], number: int, *, padded: bool) -> Dataset:
    """Return one slice with about as many attributes as a scanner gives it."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.Modality = generate_uid(), "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{name}Date", "20240301")
        setattr(dataset, f"{name}Time", "081500.123000")
    for name in ("AccessionNumber", "Manufacturer", "InstitutionName", "StationName", "PatientName",
                 "StudyDescription", "SeriesDescription", "ManufacturerModelName", "PatientID",
                 "ReferringPhysicianName", "ProtocolName", "SoftwareVersions", "StudyID",
                 "ContrastBolusAgent", "BodyPartExamined", "FilterType", "ConvolutionKernel",
                 "DeviceSerialNumber", "ScanOptions", "PatientSex"):  # fmt: skip
        setattr(dataset, name, name.upper()[:12])
    for name in ("KVP", "DataCollectionDiameter", "ReconstructionDiameter", "GantryDetectorTilt",
                 "DistanceSourceToDetector", "DistanceSourceToPatient", "TableHeight", "FocalSpots",
                 "PatientWeight", "PatientSize", "SingleCollimationWidth", "SpiralPitchFactor",
                 "TotalCollimationWidth", "TableSpeed", "TableFeedPerRotation", "CTDIvol",
                 "SliceLocation", "WindowCenter", "WindowWidth"):  # fmt: skip
        setattr(dataset, name, 1.25)
    for name in ("ExposureTime", "XRayTubeCurrent", "Exposure", "GeneratorPower", "SeriesNumber",
                 "AcquisitionNumber"):  # fmt: skip
        setattr(dataset, name, 7)
    dataset.InstanceNumber = number + 1
    referenced = Dataset()
    referenced.ReferencedSOPClassUID, referenced.ReferencedSOPInstanceUID = "1.2.3", "1.2.3.4"
    for name in ("ReferencedStudySequence", "ReferencedImageSequence", "SourceImageSequence"):
        setattr(dataset, name, [referenced, referenced])
        dataset[name].is_undefined_length = True
    for group in (0x0019, 0x0027):
        block = dataset.private_block(group, "A MAKER OF SCANNERS 01", create=True)
        for element in range(16):
            block.add_new(element, "DS", "0.123456")
    place_slice(dataset, values, number, padded=padded)
    return dataset


def place_slice(
    dataset: Dataset,
    values: np.ndarray[Any, np.dtype[np.int16]],
    number: int,
    *,
    padded: bool,
) -> None:
    """Add what geometry and pixels need."""
    dataset.ImagePositionPatient = [-180.5, -180.5, 1.25 * number - 200]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.703125, 0.703125], 1.25
    dataset.Rows = dataset.Columns = ROWS
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored, dataset.HighBit = (16, 15) if padded else (12, 11)
    dataset.PixelRepresentation = int(padded)
    if padded:
        dataset.add_new("PixelPaddingValue", "SS", PADDING)
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
    dataset.PixelData = values.astype("<i2").tobytes()


# ------------------------------------------------------------------ the ways to read it


def raw(folder: Path) -> object:
    """Read the pixels into memory and nothing else: the limit."""
    index = json.loads((folder / "index.json").read_text())
    voxels = np.empty((len(index), ROWS, ROWS), np.int16)
    descriptor = os.open(folder / "pack", os.O_RDONLY)
    for slot, (_, offset, length, _) in enumerate(index):
        os.preadv(descriptor, [voxels[slot].data.cast("B")], offset + length - FRAME)
    os.close(descriptor)
    return voxels


def ours_pack(folder: Path) -> object:
    """Read as the node hands a series to an engine."""
    return ours(folder, packed=True)


def ours_files(folder: Path) -> object:
    """Read in the same way from single files."""
    return ours(folder, packed=False)


def ours(folder: Path, *, packed: bool) -> object:
    """Read with engines.series: header, checks, geometry, volume, padding."""
    limit = 1 << 30
    files = [
        InstanceFile(
            path=folder / "pack" if packed else Path(path),
            offset=offset if packed else 0,
            length=length if packed else None,
            sop_instance_uid=uid,
            sop_class_uid=CTImageStorage,
        )
        for path, offset, length, uid in json.loads((folder / "index.json").read_text())
    ]
    return load_volume(stack_series(read_series(files, byte_limit=limit)), byte_limit=limit)


def by_pydicom(folder: Path) -> object:
    """Read with pydicom, sort along the normal, rescale."""
    datasets = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    orientation = np.array(datasets[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    along = [float(np.array(dataset.ImagePositionPatient, float) @ normal) for dataset in datasets]
    volume = np.empty((len(datasets), ROWS, ROWS), np.int16)
    for slot, index in enumerate(np.argsort(along)):
        dataset = datasets[index]
        volume[slot] = dataset.pixel_array
        volume[slot] *= np.int16(dataset.RescaleSlope)
        volume[slot] += np.int16(dataset.RescaleIntercept)
    return volume


def by_simpleitk(folder: Path) -> object:
    """Read with SimpleITK, given the names in the order of the slices."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in sorted(folder.glob("*.dcm"))])
    return sitk.GetArrayViewFromImage(reader.Execute())


WAYS: Final[dict[str, Callable[[Path], object]]] = {
    "raw readinto, pack": raw,
    "ours, pack": ours_pack,
    "ours, files": ours_files,
    BASE: by_pydicom,
    ITK: by_simpleitk,
}


# ------------------------------------------------------------------ the comparison


def measure_here(way: str, warm_up: Path, folder: Path) -> dict[str, float]:
    """Return what it costs this process to read a series.

    A small series is read before, then the series itself for the rise of the peak, then again for
    the time: so memory is touched before, which on a virtual machine may cost more than reading.
    """
    WAYS[way](warm_up)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    WAYS[way](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    wall, cpu = time.perf_counter(), time.process_time()
    kept = WAYS[way](folder)
    cost = {"cpu_ms": time.process_time() - cpu, "wall_ms": time.perf_counter() - wall}
    del kept
    return {name: seconds * 1e3 for name, seconds in cost.items()} | {"peak_mb": peak / 1024}


def measure(way: str, warm_up: Path, folder: Path) -> dict[str, float]:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, "--way", way, "--series", str(warm_up), str(folder)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603
    found: dict[str, float] = json.loads(output)
    return found


def compare(folder: Path, slices: int, rounds: int, *, padded: bool) -> Results:
    """Measure every way in every round, in an order that turns."""
    for name, count in (("small", 3), ("large", slices)):
        (folder / name).mkdir()
        make_series(folder / name, count, padded=padded)
    ways = [way for way in WAYS if way != ITK or importlib.util.find_spec("SimpleITK")]
    results: Results = {way: [] for way in ways}
    for number in range(rounds):
        turn = number % len(ways)
        for way in ways[turn:] + ways[:turn]:
            results[way].append(measure(way, folder / "small", folder / "large"))
    return results


def show(results: Results) -> None:
    """Print medians, and the ratio of CPU time to the base with its quartiles."""
    print(f"{'':22}{'CPU ms':>9}{'wall ms':>9}{'peak MB':>9}   CPU / {BASE} (quartiles)")
    for way, costs in results.items():
        pairs = zip(costs, results[BASE], strict=True)
        ratios = [cost["cpu_ms"] / base["cpu_ms"] for cost, base in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        medians = [statistics.median(cost[key] for cost in costs) for key in costs[0]]
        cpu, wall, peak = medians
        print(f"{way:22}{cpu:9.0f}{wall:9.0f}{peak:9.0f}   {middle:.3f} ({low:.3f} to {high:.3f})")


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=9, help="at least 2")
    parser.add_argument("--padded", action="store_true", help="16 signed bits with padding")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--series", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure_here(options.way, *options.series)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = compare(Path(folder), options.slices, options.rounds, padded=options.padded)
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
