"""A headless Chromium that stays open and is spoken to (DevTools protocol, over a pipe)."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self, TypeAlias

from tests.browser.chromium import FLAGS, PROGRAM, SECONDS, ChromiumError

Message: TypeAlias = dict[str, object]

DRAWING: Final = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
"""WebGL without a graphics card."""
READ: Final = 1 << 16


class Page:
    """One page of one browser; `problems` are what it complained of since it was last opened."""

    def __init__(self, width: int, height: int) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        flags = [flag for flag in FLAGS if flag != "--disable-gpu"]
        size, profile = f"--window-size={width},{height}", f"--user-data-dir={self._profile.name}"
        pipes = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", PROGRAM, *flags, *DRAWING, size, profile, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._number = 0
        self._buffer = b""
        self._session = ""
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        """Attach to the page that is open."""
        try:
            self._attach()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        """End the browser."""
        self._end()

    def run_first(self, script: str) -> None:
        """Let a script run in every page before its own do."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def open(self, url: str) -> None:
        """Go to an address and forget what was complained of before."""
        self.call("Page.navigate", url="about:blank")
        self.problems.clear()
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> object:
        """Return what an expression is worth, once its promise is kept.

        Raises:
            ChromiumError: it threw, or Chromium does not answer.
        """
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise ChromiumError(json.dumps(answer["exceptionDetails"])[:1000])
        result = answer["result"]
        assert isinstance(result, dict)
        return result.get("value")

    def wait_for(self, expression: str, seconds: float = SECONDS) -> object:
        """Return what an expression is worth as soon as that is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.evaluate(expression):
                return found
            time.sleep(0.1)
        raise ChromiumError(f"not true in {seconds} s: {expression}; {self.problems}")

    def screenshot(self, path: Path) -> None:
        """Write a PNG of what is seen."""
        content = self.call("Page.captureScreenshot", format="png")["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(str(content)))

    def call(self, method: str, **params: object) -> Message:
        """Call a method of the protocol and return its result."""
        self._number += 1
        number = self._number
        message: Message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            heard = self._hear(end)
            if heard.get("id") != number:
                self._note(heard)
                continue
            if "error" in heard:
                raise ChromiumError(f"{method}: {heard['error']}")
            result = heard["result"]
            assert isinstance(result, dict)
            return result

    # ------------------------------------------------------------ the pipe

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        assert isinstance(targets, list)
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = str(attached["sessionId"])
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def _hear(self, end: float) -> Message:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._in, READ) if ready else b""
            if not part:
                raise ChromiumError("Chromium ended, or does not answer")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        heard: Message = json.loads(line)
        return heard

    def _note(self, heard: Message) -> None:
        """Keep exceptions, errors on the console, and requests that were refused."""
        params = heard.get("params")
        if not isinstance(params, dict):
            return
        if heard["method"] == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {json.dumps(params)[:600]}")
        elif heard["method"] == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.problems.append(f"console: {json.dumps(params['args'])[:600]}")
        elif heard["method"] == "Network.responseReceived" and params["response"]["status"] >= 400:
            response = params["response"]
            self.problems.append(f"HTTP {response['status']}: {response['url']}")

    def _end(self) -> None:
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._profile.cleanup()
