"""Headless Chromium, driven over its DevTools pipe: what a page prints, asks for and looks like."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

# Nothing of its own goes out, and no name but the pages' own server resolves.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--force-color-profile=srgb", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)  # fmt: skip


def find_chromium() -> str | None:
    """The command of an installed Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, (shutil.which(name) for name in names)), None)


class Browser:
    """One window. After `open`: `console`, what the page printed or failed at, and `requests`, all that it asked for."""

    def __init__(self, command: str, profile: Path) -> None:
        (ours_in, theirs_out), (theirs_in, ours_out) = os.pipe(), os.pipe()
        # The protocol wants its pipes at 3 and 4, which may be taken here: they go by way of numbers that are not.
        far = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs_in, theirs_out)]
        self.process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$@" 3<&{far[0]} 4>&{far[1]} {far[0]}<&- {far[1]}>&-', "bash"),
                *(command, *FLAGS, f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=far,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *far):
            os.close(end)
        self._reader, self._writer = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._count, self._session = 0, None
        self.console: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command; events that arrive before it are kept."""
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, address: str, width: int = 1280, height: int = 900, media: str = "") -> None:
        """Loads a page anew at a width in CSS pixels, pictures outside the window too. media: "print" or nothing."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", media=media)
        self.console.clear()
        self.requests.clear()
        self._events.clear()
        self.call("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._read()
        # Pictures that wait until they are scrolled to are asked for now.
        self.evaluate(
            "(async () => { for (const image of document.images) { image.loading = 'eager';"
            " await image.decode().catch(() => 0); } })()"
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page (of a promise, what it resolves to)."""
        options = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **options)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        options = {"format": "png", "captureBeyondViewport": True}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def print(self, path: Path) -> None:
        """The page as it is printed: a PDF, A4."""
        options = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False}
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", **options)["data"]))

    def close(self) -> None:
        try:
            self._session = None
            self.call("Browser.close")
        except (OSError, EOFError):
            pass
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.close()
        self._writer.close()

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._reader.read(1)) != b"\0":
            if not byte:
                raise EOFError("the browser has gone")
            text += byte
        message = json.loads(text)
        kind, content = message.get("method", ""), message.get("params", {})
        self._events.append(kind)
        if kind == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])
        elif kind == "Network.loadingFailed":
            self.console.append(f"not loaded: {content['errorText']}")
        elif kind == "Log.entryAdded":
            self.console.append(f"{content['entry']['level']}: {content['entry']['text']}")
        elif kind == "Runtime.exceptionThrown":
            self.console.append(content["exceptionDetails"]["text"])
        elif kind == "Runtime.consoleAPICalled":
            self.console.append(f"{content['type']}: " + " ".join(str(a.get("value")) for a in content["args"]))
        return message
