from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

from node.admin import pages

NOON = datetime(2026, 7, 15, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("DOE^JANE", "DOE, JANE"),
        ("DOE^JANE^M^^", "DOE, JANE M"),
        ("DOE", "DOE"),
        ("", ""),
        ("^JANE", "JANE"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou = 山田, 太郎 = やまだ, たろう"),
    ],
)
def test_person_names_are_written_for_reading(value: str, written: str) -> None:
    assert pages.person_name(value) == written


def test_dates_and_times_that_are_none_stay_as_they_came() -> None:
    assert pages.dicom_date("20260131") == "2026-01-31"
    assert pages.dicom_date("yesterday") == "yesterday"
    assert pages.dicom_time("130559.25") == "13:05:59"
    assert pages.dicom_time("1305") == "13:05"
    assert pages.dicom_time("noon") == "noon"
    assert pages.dicom_time("13") == "13"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "now"),
        (1, "1 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7200, "2 h ago"),
        (200_000, "2 d ago"),
        (-30, "in 30 s"),
        (-3600, "in 1 h"),
    ],
)
def test_ages_are_relative_to_now(seconds: float, written: str) -> None:
    assert pages.age_text(NOON - timedelta(seconds=seconds), NOON) == written


def test_times_are_written_in_utc() -> None:
    local = datetime(2026, 7, 15, 14, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    assert pages.iso_text(local) == "2026-07-15T12:00:00Z"


def test_sizes_are_written_with_a_unit() -> None:
    assert [pages.size_text(n) for n in (0, 999, 1500, 2_500_000, 3_000_000_000)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
    ]


def test_control_characters_become_visible() -> None:
    assert pages.visible("a\x1b[2Jb\r\n\u202ec") == "a\ufffd[2Jb\ufffd\n\ufffdc"
    assert pages.visible(Markup("<b>\x1b</b>")) == Markup("<b>\x1b</b>")
    assert pages.visible(7) == 7


def test_the_joiners_that_scripts_need_stay() -> None:
    assert pages.visible("\u0915\u094d\u200d\u0937") == "\u0915\u094d\u200d\u0937"


@given(st.text())
def test_no_text_can_open_a_tag(text: str) -> None:
    page = pages.make_environment().from_string("<p>{{ text }}</p>").render(text=text)
    inside = page.removeprefix("<p>").removesuffix("</p>")
    assert "<" not in inside
    assert ">" not in inside
    assert "\x1b" not in inside


def test_a_missing_value_stops_the_page_and_does_not_show_as_nothing() -> None:
    with pytest.raises(UndefinedError):
        pages.make_environment().from_string("{{ nowhere }}").render()


def test_the_address_of_a_study_is_quoted() -> None:
    assert pages.study_path("1.2.3") == "/studies/1.2.3"
    assert pages.study_path('1"/../x') == "/studies/1%22%2F..%2Fx"


def test_registered_uids_have_names() -> None:
    assert pages.uid_name("1.2.840.10008.5.1.4.1.1.66.4") == "Segmentation Storage"
    assert pages.uid_name("1.2.3") == "1.2.3"
