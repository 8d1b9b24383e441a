"""Pages from templates: autoescape always on, control characters made visible, times in UTC."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from pydicom.uid import UID

from node.admin import wording
from node.admin.context import AdminContext
from node.admin.explanation import explain
from node.admin.outcome import read_outcome

TEMPLATES: Final = Path(__file__).parent / "templates"

_AGES: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_SIZES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_KEPT: Final = "\n\t\u200c\u200d"  # line ends, tabs, and the joiners that some scripts need
_DA_LENGTH: Final = 8
_TM_SHORTEST: Final = 4


def visible(value: object) -> object:
    """Replace what cannot be seen in a text, so that it shows and cannot steer a terminal.

    Control and format characters (Unicode Cc and Cf: escape, bidirectional override) become
    U+FFFD; line ends, tabs and joiners stay. Mark-up that the templates made passes through.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(
        "\ufffd" if unicodedata.category(char) in {"Cc", "Cf"} and char not in _KEPT else char
        for char in value
    )


def person_name(value: str) -> str:
    """Write a person name (PS3.5 6.2.1, VR PN) for reading: `DOE^JANE` becomes `DOE, JANE`."""
    groups = []
    for group in value.split("="):
        family, *others = [part.strip() for part in group.split("^")]
        rest = " ".join(part for part in others if part)
        written = ", ".join(part for part in (family, rest) if part)
        if written:
            groups.append(written)
    return " = ".join(groups)


def dicom_date(value: str) -> str:
    """Write a date (VR DA) as 2026-01-31; anything that is no such date stays as it came."""
    if len(value) == _DA_LENGTH and value.isdecimal():
        return f"{value[:4]}-{value[4:6]}-{value[6:]}"
    return value


def dicom_time(value: str) -> str:
    """Write a time (VR TM) as 13:05:59; anything that is no such time stays as it came."""
    digits = value.partition(".")[0]
    if len(digits) >= _TM_SHORTEST and digits.isdecimal() and len(digits) % 2 == 0:
        return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
    return value


def size_text(size: int) -> str:
    """Write a number of bytes for reading: 1.5 MB."""
    for factor, unit in _SIZES:
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def age_text(at: datetime, now: datetime) -> str:
    """Say how long ago, or how far ahead, a time is: "3 min ago", "in 20 s"."""
    seconds = (now - at).total_seconds()
    factor, unit = next((step for step in _AGES if abs(seconds) >= step[0]), (1.0, "s"))
    count = int(abs(seconds) / factor)
    if count == 0:
        return "now"
    return f"{count} {unit} ago" if seconds > 0 else f"in {count} {unit}"


def iso_text(at: datetime) -> str:
    """Write a time in UTC to the second: 2026-01-31T13:05:59Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def uid_name(uid: str) -> str:
    """Return the name of a UID that the standard registers (PS3.6 Annex A), or the UID itself."""
    return UID(uid).name


def study_path(study_instance_uid: str) -> str:
    """Return the address of a study's page."""
    return f"/studies/{quote(study_instance_uid, safe='')}"


@pass_context
def _when(context: Context, at: datetime | None) -> str:
    if at is None:
        return Markup('<span class="none">&ndash;</span>')
    age = age_text(at, context["now"])
    iso = iso_text(at)
    return Markup('<time datetime="{}">{}</time> <span class="age">{}</span>').format(iso, iso, age)


def make_environment() -> Environment:
    """Make the template environment that all pages share."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        when=_when,
        person_name=person_name,
        dicom_date=dicom_date,
        dicom_time=dicom_time,
        size=size_text,
        iso=iso_text,
        uid_name=uid_name,
        study_path=study_path,
        tone=wording.tone,
        action_text=wording.action_text,
        unit_text=wording.unit_text,
        status_hex=wording.status_hex,
        status_text=wording.status_text,
        study_act=wording.study_act,
        job_act=wording.job_act,
        delivery_act=wording.delivery_act,
        explain=explain,
        read_outcome=read_outcome,
    )
    environment.globals.update(meaning=wording.meaning, results_notice=wording.RESULTS_NOTICE)
    return environment


class Pages:
    """Render the templates with what every page shows: the node, its version and the time."""

    def __init__(self, context: AdminContext) -> None:
        self._context = context
        self._environment = make_environment()

    def render(
        self, template: str, /, *, status: int = HTTPStatus.OK, **values: object
    ) -> HTMLResponse:
        """Render one template into a page."""
        text = self._environment.get_template(template).render(
            device_name=self._context.device_name,
            version=self._context.version,
            settings=self._context.settings,
            now=self._context.clock(),
            **values,
        )
        return HTMLResponse(text, status_code=status)
