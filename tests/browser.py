"""Chromium without a window, driven over its debugging pipe: what a page does and asks for."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    "--window-size=1100,900",
)
_TIMEOUT_S = 60


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """A page that is open.

    Attributes
    ----------
    complaints : errors and warnings of the console, exceptions, and what was refused.
    requests : addresses that the page asked for, but for data within it.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer, self._rest = reader, writer, b""
        self._number = 0
        self._session: str | None = None
        self._events: list[dict] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path: Path) -> None:
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")
        self.requests.remove(path.as_uri())

    def run(self, program: str):
        """Evaluate a program, and return its value."""
        found = self.call(
            "Runtime.evaluate", expression=program, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def picture(self, path: Path, **area) -> None:
        clip = {"clip": {"scale": 1, **area}} if area else {}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, **clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def call(self, method: str, **parameters):
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._writer, data) :]
        answer = self._wait(lambda message: message.get("id") == number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _wait(self, is_wanted):
        if found := next((event for event in self._events if is_wanted(event)), None):
            return found
        end = time.monotonic() + _TIMEOUT_S
        while True:
            message = self._read(end)
            self._note(message)
            if is_wanted(message):
                return message

    def _read(self, end: float) -> dict:
        while b"\0" not in self._rest:
            assert select.select([self._reader], [], [], max(0, end - time.monotonic()))[0], (
                "The browser does not answer."
            )
            part = os.read(self._reader, 2**20)
            assert part, "The browser has ended."
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, message: dict) -> None:
        method, found = message.get("method"), message.get("params", {})
        if method:
            self._events.append(message)
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(found["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and found["type"] in {"error", "warning"}:
            self.complaints.append(str(found["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(found["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = found["request"]["url"]
            if not url.startswith(("data:", "blob:", "about:")):
                self.requests.append(url)


@contextmanager
def open_browser():
    """Start a browser with an empty page, and end it."""
    program = find_chromium()
    assert program, "Chromium is not installed."
    to_browser, writer = os.pipe()
    reader, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        pipes = f'exec "$@" 3<&{to_browser} 4>&{from_browser} 2>"$0"'
        said = Path(profile, "said")
        browser = subprocess.Popen(
            ["bash", "-c", pipes, said, *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
        )
        for end in (to_browser, from_browser):
            os.close(end)
        try:
            page = Page(reader, writer)
            page.attach()
            yield page
            page._session = None
            page.call("Browser.close")
        except AssertionError as err:
            err.add_note(said.read_text(errors="replace")[-2000:])
            raise
        finally:
            for end in (reader, writer):
                os.close(end)
            try:
                browser.wait(10)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()
