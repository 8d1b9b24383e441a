"""Settings of a destination over the web that would leak a secret, or not work, are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from node.delivery._stow_settings import StowTargetSettings


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://pacs.example"},
        {"url": "https://"},
        {"url": "https://user:word@pacs.example/dicom-web"},
        {"url": "https://pacs.example/dicom-web?x=1"},
        {"url": "https://pacs.example:99999/"},
        {"url": "http://169.254.169.254/latest"},
        {"url": "http://[::ffff:169.254.169.254]/latest"},
        {"url": "http://pacs.example/", "token_file": "/secret"},
        {"url": "https://pacs.example/", "user": "wetread"},
        {"url": "https://pacs.example/", "user": "a:b", "password_file": "/secret"},
        {"url": "https://pacs.example/", "certificate": "/cert"},
        {
            "url": "https://pacs.example/",
            "token_file": "/secret",
            "user": "wetread",
            "password_file": "/secret",
        },
    ],
)
def test_settings_that_would_leak_or_not_work_are_refused(settings: dict[str, str]) -> None:
    """T37: a link-local address, where clouds keep their secrets, is no destination."""
    with pytest.raises(ValidationError):
        StowTargetSettings.model_validate(settings)
