"""A headless Chromium driven over the Chrome DevTools protocol, as plain synchronous calls. Import as `firstframe.tests.browser.chromium`.

It gets a profile of its own that is thrown away, and reaches nothing but the loopback address.
"""
import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = ("--headless=new", "--disable-gpu", "--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server", "--mute-audio", "--force-color-profile=srgb",
           "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-port=0")


class BrowserError(RuntimeError):
    """The browser did not start, or the page threw an exception."""


def find() -> str | None:
    """The browser's program; None when there is none. The environment variable CHROMIUM wins over the PATH."""
    return next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), *NAMES))), None)


class Page:
    """`with Page(url) as page: page.evaluate("document.title")`. One tab; `errors` holds what the page threw and nobody caught."""

    def __init__(self, url: str, width: int = 1600, height: int = 1000):
        self.url, self.width, self.height, self.errors, self.number = url, width, height, [], 0

    def __enter__(self):
        self.loop, self.profile = asyncio.new_event_loop(), Path(tempfile.mkdtemp(prefix="firstframe_chromium_"))
        self.session = self.process = None
        try:
            self._start()
        except BaseException:  # __exit__ is not called then
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.session:
            self.loop.run_until_complete(self.session.close())
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.loop.close()
        for _ in range(10):  # its helpers write for a moment longer
            shutil.rmtree(self.profile, ignore_errors=True)
            if not self.profile.exists():
                break
            time.sleep(0.2)

    def _start(self) -> None:
        root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command = [find(), *OPTIONS, *root, f"--user-data-dir={self.profile}", f"--window-size={self.width},{self.height}", "about:blank"]
        with open(self.profile / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        port, end = self.profile / "DevToolsActivePort", time.monotonic() + 120
        while not (port.is_file() and "\n" in port.read_text()):
            if self.process.poll() is not None or time.monotonic() > end:
                raise BrowserError(f"{command[0]} did not start:\n{(self.profile / 'log').read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        self.loop.run_until_complete(self._connect(int(port.read_text().split()[0])))
        for domain in ("Page", "Runtime"):
            self.command(f"{domain}.enable")
        self.command("Emulation.setDeviceMetricsOverride", width=self.width, height=self.height, deviceScaleFactor=1, mobile=False)
        self.go(self.url)

    async def _connect(self, port: int) -> None:
        self.session = aiohttp.ClientSession()
        async with self.session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            tab = next(t for t in await answer.json() if t["type"] == "page")
        self.socket = await self.session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0)

    def command(self, method: str, timeout: float = 120, **parameters) -> dict:
        return self.loop.run_until_complete(asyncio.wait_for(self._command(method, parameters), timeout))

    async def _command(self, method, parameters):
        self.number = mine = self.number + 1
        await self.socket.send_json({"id": mine, "method": method, "params": parameters})
        while True:
            message = json.loads(await self.socket.receive_str())
            if message.get("method") == "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.errors.append((details.get("exception") or {}).get("description") or details["text"])
            elif message.get("method") == "Page.javascriptDialogOpening":  # alert() and its like would hold everything up
                self.errors.append(f"the page asked: {message['params']['message']}")
                self.number += 1
                await self.socket.send_json({"id": self.number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}})
            elif message.get("id") == mine:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']['message']}")
                return message["result"]

    def go(self, url: str) -> None:
        self.command("Page.navigate", url=url)

    def evaluate(self, expression: str, timeout: float = 120):
        """The value of a JavaScript expression, awaited; it must fit into JSON. An `await` may stand in it."""
        if "await " in expression:
            expression = f"(async () => ({expression}))()"
        answer = self.command("Runtime.evaluate", timeout, expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError((details.get("exception") or {}).get("description") or details["text"])
        return answer["result"].get("value")

    def until(self, expression: str, timeout: float = 120):
        """Waits for a true value and returns it; exceptions count as not yet."""
        end, last = time.monotonic() + timeout, None
        while True:
            try:
                last = self.evaluate(expression)
                if last:
                    return last
            except BrowserError as error:
                last = error
            if time.monotonic() > end:
                raise BrowserError(f"Waited {timeout:g} s in vain for {expression}; it is {last}. Uncaught: {self.errors}")
            time.sleep(0.2)

    def click(self, x: float, y: float) -> None:
        """A real click of the left button at a point of the window."""
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move(self, x: float, y: float) -> None:
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))
