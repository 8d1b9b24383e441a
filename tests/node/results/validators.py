"""Real validators, and the only messages that are accepted from them.

Each accepted message has its reason beside it. Whatever else a validator says fails the test.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

JAVA: Final = (
    "java",
    "-Djdk.xml.xpathTotalOpLimit=0",  # Java 17 else stops with JAXP0801003
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-cp",
    "/usr/share/java/pixelmed.jar",
    str(Path(__file__).with_name("SeveralReports.java")),
)
PRIVATE_SCHEME: Final = re.compile(r"Warning .*CodingSchemeDesignator.* = <99WETREAD>")
"""A private scheme is no defined term; the object identifies it, as PS3.3 C.12.1.1.2 asks."""

SR_WARNINGS: Final = {
    "VAL-09 algorithm": re.compile(
        r'Warning: .*/(TEXT|CODE) \(11100[0123],DCM,"Algorithm [^"]*"\): '
        r"Content Item not in template"
    ),
    "VAL-09 qualitative": re.compile(
        r'Warning: .*"Measurement Group"\)/CODE \((39607008|27925004|60046008),SCT,'
        r'"(Lung|Nodule|Pleural effusion)"\): '
        r"Content Item not in template"
    ),
    "VAL-09 purpose of region": re.compile(
        r'Warning: .*"Measurement Group"\)/CODE \(130400,DCM,"Geometric purpose of region"\): '
        r"Content Item not in template"
    ),
    # TID 1411 may be extended; no row of it names the image of a number that is on one slice
    "source of measurement": re.compile(
        r'Warning: .*/NUM \([^)]*\)/IMAGE \(121112,DCM,"Source of Measurement"\): '
        r"Content Item not in template"
    ),
}
SR_PROGRESS: Final = re.compile(
    r"Found (Comprehensive3DSR|EnhancedSR|KeyObjectSelectionDocument) IOD"
    r"|Found Root Template TID_(1500|2000|2010) .*"
    r"|Root Template Validation Complete|IOD validation complete"
)
DCIODVFY_ACCEPTED: Final = {
    "VAL-03": "Information Object Not found",  # its list is older than label maps
    "VAL-01": "Laterality(0020,0060)>",  # of a source that names no part of the body
    "coordinates in a plane": "CommonZCoordinateValue(006a,0010)> - Only valid for",  # not there
}
"""Words of messages that single tests accept, by name, of the objects or sources they belong to."""
DCENTVFY_ACCEPTED: Final = {
    "VAL-15": re.compile(r"Warning - Different information entities .*AccessionNumber.*"),
    "VAL-03": re.compile(  # its list is older than label maps
        r"Warning - (Unrecognized SOP Class - 1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.7 - .*"
        r"|Different information entities .* IE <Unknown> versus <\w+> for file .*label_map-.*)"
    ),
}
DSRDUMP_ACCEPTED: Final = {
    "VAL-13": re.compile(r"W: The VR checker does not support this Specific Character Set.*"),
}
LATERALITY_UNKNOWN: Final = "only permitted to be empty when actually unknown"
"""VAL-01: of a source that names no body part it is unknown."""
DCMPSCHK_ACCEPTED: Final = {
    "ContributionDateTime": "its pattern for DT knows no fraction together with an offset",
}
DCMPSCHK_ATTRIBUTE: Final = re.compile(r"Affected attribute: (\w+) ")


def dciodvfy(path: Path) -> list[str]:
    """Check an object against its IOD (dicom3tools); return what is not accepted."""
    lines = _run(["dciodvfy", "-new", str(path)]).splitlines()
    said = [line for line in lines if line.startswith(("Error", "Warning"))]
    return [line for line in said if not PRIVATE_SCHEME.fullmatch(line)]


def dcentvfy(paths: Sequence[Path]) -> list[str]:
    """Check that sources and results agree on patient, study, series (dicom3tools)."""
    lines = _run(["dcentvfy", *map(str, paths)], encoding="latin-1").splitlines()
    return _not_accepted(lines, tuple(DCENTVFY_ACCEPTED.values()))


def sr_validator(paths: Sequence[Path]) -> list[str]:
    """Check reports against their templates (PixelMed, the Connectathon's validator)."""
    said = _run([*JAVA, *map(str, paths)])
    outputs = dict(part.split("\n", 1) for part in f"\n{said}".split("\nFILE ")[1:])
    faults = []
    for path in paths:
        output = outputs.get(str(path), said)
        if "IOD validation complete" not in output:
            faults.append(f"{path.name}: the validator did not finish: {output[-400:]}")
        lines = [line for line in output.splitlines() if not SR_PROGRESS.fullmatch(line)]
        faults += [
            f"{path.name}: {line}" for line in _not_accepted(lines, tuple(SR_WARNINGS.values()))
        ]
    return faults


def dsrdump(path: Path) -> tuple[str, list[str]]:
    """Print a report (DCMTK); return the text and the messages that are not accepted."""
    done = subprocess.run(
        ["dsrdump", "+Pl", "+U8", str(path)], capture_output=True, text=True, check=False
    )
    return done.stdout, _not_accepted(done.stderr.splitlines(), tuple(DSRDUMP_ACCEPTED.values()))


def dcmpschk(path: Path) -> list[str]:
    """Check a presentation state (DCMTK); return the attributes that are not accepted."""
    said = _run(["dcmpschk", str(path)])
    faults = DCMPSCHK_ATTRIBUTE.findall(said)
    if "Test passed." not in said and len(faults) != said.count("E: Error: "):
        return [said]
    return [keyword for keyword in faults if keyword not in DCMPSCHK_ACCEPTED]


def _not_accepted(lines: Sequence[str], accepted: Sequence[re.Pattern[str]]) -> list[str]:
    said = [line.strip() for line in lines if line.strip()]
    return [line for line in said if not any(pattern.fullmatch(line) for pattern in accepted)]


def _run(command: Sequence[str], encoding: str = "utf-8") -> str:
    done = subprocess.run(command, capture_output=True, encoding=encoding, check=False, timeout=120)
    return done.stdout + done.stderr
