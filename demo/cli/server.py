"""A real ComfyUI server with this pack inside, for the demo command and the tests; plain synchronous calls.

It runs in its own process group on a free loopback port, with a throw-away base folder, and is ended whatever happens:
an exception, Ctrl-C, SIGTERM, a closed terminal, the interpreter's end. /history is the truth about a run; the websocket only feeds the
progress display, so a lost message cannot hang anybody.
"""
import atexit
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

from .base_folder import PACK, fill
from .protocol import GraphError, execution_error, listen, validation_error

__all__ = ["PACK", "GraphError", "Server", "ServerError"]
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach our loopback port
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
UNREACHABLE = (OSError, http.client.HTTPException)


class ServerError(RuntimeError):
    """The server did not start, died, or did not answer in time."""


def host_folder() -> Path:
    path = os.environ.get("COMFYUI_PATH", "")
    if not path or not Path(path, "main.py").is_file():
        raise ServerError(f"COMFYUI_PATH should name a ComfyUI folder (with main.py in it), it is {path!r}. ./scripts/demo and ./scripts/test set it.")
    return Path(path).resolve()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """`with Server() as s: s.run(graph)`. names: what the pack's folder is called; cwd: where the host is started from; arguments,
    custom_nodes (folders), environment: what it gets besides."""

    def __init__(self, names=("ComfyUI-FirstFrame",), cwd=None, start_timeout=240, arguments=(), custom_nodes=(), environment=None):
        self.names, self.cwd, self.start_timeout, self.arguments = names, cwd, start_timeout, list(arguments)
        self.custom_nodes, self.environment = custom_nodes, environment or {}
        self.process = self.base = None
        self._signals = []  # those that end this process and have our handler for the time being

    def __enter__(self):
        host = host_folder()
        atexit.register(self.close)
        self._signals = [s for s in ENDING if threading.current_thread() is threading.main_thread() and signal.getsignal(s) is signal.SIG_DFL]
        for sign in self._signals:
            signal.signal(sign, lambda number, _: sys.exit(128 + number))  # so that the clean-up below runs
        try:
            self._start(host)
        except BaseException:  # also Ctrl-C while the host loads: __exit__ is not called then
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _start(self, host: Path) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="firstframe_"))
        self.log = self.base / "server.log"
        fill(self.base, self.names, self.custom_nodes)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        import torch
        command = [sys.executable, str(host / "main.py"), "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(self.base),
                   "--disable-api-nodes", "--database-url", "sqlite:///:memory:", *([] if torch.cuda.is_available() else ["--cpu"]), *self.arguments]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.cwd or self.base,
                                            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment}, start_new_session=True)
        end = time.monotonic() + self.start_timeout
        while True:
            try:
                self.get("/system_stats", timeout=5)
                return
            except UNREACHABLE:
                pass
            self._check_alive("did not start")
            if time.monotonic() > end:
                raise ServerError(f"ComfyUI did not answer within {self.start_timeout} s. The last lines of its log:\n{self.tail()}")
            time.sleep(0.2)

    def _check_alive(self, what: str) -> None:
        if self.process is None or self.process.poll() is not None:
            code = self.process and self.process.returncode
            raise ServerError(f"ComfyUI {what} (exit code {code}). The last lines of its log:\n{self.tail()}")

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def close(self, grace: float = 5.0) -> None:
        """Ends the whole process group, politely first; harmless when called twice."""
        if self.process is not None:
            for sign, wait in ((signal.SIGTERM, grace), (getattr(signal, "SIGKILL", signal.SIGTERM), grace)):
                if self.process.poll() is None:
                    try:
                        os.killpg(self.process.pid, sign) if hasattr(os, "killpg") else self.process.kill()
                        self.process.wait(wait)
                    except (ProcessLookupError, subprocess.TimeoutExpired):
                        pass
            self.process = None
        if self.base is not None:
            shutil.rmtree(self.base, ignore_errors=True)
            self.base = None
        while self._signals:
            signal.signal(self._signals.pop(), signal.SIG_DFL)
        atexit.unregister(self.close)

    def request(self, path, data=None, content_type=None, timeout=60) -> bytes:
        request = urllib.request.Request(self.url + path, data, {"Content-Type": content_type} if content_type else {})
        with NO_PROXY.open(request, timeout=timeout) as answer:
            return answer.read()

    def get(self, path: str, timeout=60):
        return json.loads(self.request(path, timeout=timeout))

    def post(self, path: str, body: dict):
        text = self.request(path, json.dumps(body).encode(), "application/json")
        return json.loads(text) if text.strip() else {}

    def object_info(self) -> dict:
        return self.get("/object_info", timeout=120)

    def fetch(self, record: dict) -> bytes:
        """The file behind a record of the outputs: {filename, subfolder, type}."""
        return self.request("/view?" + urllib.parse.urlencode({k: record.get(k, "") for k in ("filename", "subfolder", "type")}))

    def upload_image(self, path) -> str:
        """Sends a picture to the host's input folder; the name that LoadImage takes."""
        path, mark = Path(path), uuid.uuid4().hex
        name = re.sub(r"[^A-Za-z0-9._-]", "_", path.name)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        body = head.encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        answer = json.loads(self.request("/upload/image", body, f"multipart/form-data; boundary={mark}"))
        return "/".join(filter(None, (answer.get("subfolder"), answer["name"])))

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def run(self, graph: dict, on_progress=None, timeout: float = 3600, workflow: dict | None = None) -> dict:
        """Runs an API-format graph; the outputs by node id. workflow: the UI-format graph that saved files shall carry."""
        client, stop, ready = uuid.uuid4().hex, threading.Event(), threading.Event()
        if on_progress:
            threading.Thread(target=listen, args=(self.url, client, on_progress, stop, ready), daemon=True).start()
            ready.wait(10)
        extra = {"extra_data": {"extra_pnginfo": {"workflow": workflow}}} if workflow else {}
        try:
            return self._wait(self._queue({"prompt": graph, "client_id": client, **extra}), timeout)
        finally:
            stop.set()

    def _queue(self, body: dict) -> str:
        try:
            answer = self.post("/prompt", body)
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise validation_error(json.loads(error.read())) from None
        if answer.get("node_errors"):  # the host would run the other outputs and leave these out
            self.post("/queue", {"clear": True})
            self.interrupt()
            raise validation_error(answer)
        return answer["prompt_id"]

    def _wait(self, prompt_id: str, timeout: float) -> dict:
        end, pause = time.monotonic() + timeout, 0.05
        while True:
            try:
                entry = self.get(f"/history/{prompt_id}", timeout=30).get(prompt_id)
            except UNREACHABLE:  # also a host too busy to answer
                entry = None
                self._check_alive("ended during the run")
            if entry and entry.get("status"):
                if entry["status"]["status_str"] == "success":
                    return entry["outputs"]
                raise execution_error(entry["status"]["messages"])
            if time.monotonic() > end:
                self.interrupt()
                raise ServerError(f"The graph did not finish within {timeout:g} s. The last lines of the log:\n{self.tail()}")
            time.sleep(pause)
            pause = min(0.5, pause * 1.5)
