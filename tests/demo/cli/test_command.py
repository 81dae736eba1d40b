"""The demo command from outside: as a process, the way scripts/demo starts it."""
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from firstframe.demo.cli import outputs
from firstframe.demo.cli.server import PACK
from PIL import Image

RUN = [sys.executable, str(PACK / "demo" / "run.py"), "cli.command"]


def demo(*arguments, **more):
    return subprocess.run([*RUN, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=300, **more)


def node(id, type, values, inputs=(), outputs=()):
    return {"id": id, "type": type, "mode": 0, "widgets_values": values, "inputs": [{"name": n, "type": t, "link": link} for n, t, link in inputs],
            "outputs": [{"name": t, "type": t} for t in outputs]}


@pytest.fixture
def files(tmp_path):
    """A picture and a graph that alternates it with black frames and saves them, with stock nodes only: no weights are needed."""
    Image.new("RGB", (33, 32), "red").save(tmp_path / "picture.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "picture.png").read_bytes()[:50])
    ui = {"version": 0.4, "links": [[1, 1, 0, 5, 0, "IMAGE"], [2, 4, 0, 5, 1, "IMAGE"], [3, 5, 0, 2, 0, "IMAGE"], [4, 2, 0, 3, 0, "IMAGE"]], "nodes": [
        node(1, "LoadImage", ["none.png", "image"], outputs=["IMAGE", "MASK"]),
        node(2, "RepeatImageBatch", [3], [("image", "IMAGE", 3)], ["IMAGE"]),
        node(3, "SaveAnimatedWEBP", ["clip", 8.0, True, 80, "default"], [("images", "IMAGE", 4)]),
        node(4, "EmptyImage", [33, 32, 1, 0], outputs=["IMAGE"]),
        node(5, "ImageBatch", [], [("image1", "IMAGE", 1), ("image2", "IMAGE", 2)], ["IMAGE"])]}
    (tmp_path / "workflow.json").write_text(json.dumps(ui))
    return tmp_path


@pytest.mark.parametrize("options, words", [
    (["--image", "none.png"], "no image file 'none.png'"),
    (["--image", "workflow.json"], "cannot be read as a picture"),
    (["--image", "broken.png"], "cannot be read as a picture"),
    (["--prompt", "   "], "--prompt is only spaces"),
    (["--frames", "1"], "--frames is 1, but a video has at least 2"),
    (["--frames", "many"], "argument --frames: invalid int value"),
    (["--seed", "-1"], "--seed is -1"),
    (["--workflow", "none.json"], "no workflow file 'none.json'"),
    (["--workflow", "picture.png"], "'picture.png' is not a workflow"),
    (["--out", "picture.png"], "'picture.png' is a file"),
    (["--out", "picture.png/below"], "'picture.png/below' lies below 'picture.png', which is a file"),
    (["--out", "/proc/x"], "'/proc/x' cannot be written ("),
    (["--table", "none"], "no table 'none'"),
    (["--colour", "red"], "unrecognized arguments: --colour red"),
])
def test_bad_options_get_one_sentence(files, options, words):
    done = demo("--image", "picture.png", "--workflow", "workflow.json", *options, cwd=files)
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stdout == ""


def test_a_table_is_markdown_and_its_progress_is_not_in_it():
    done = demo("--table", "motion_map", 1)
    head, rule, *rows = done.stdout.splitlines()
    assert done.returncode == 0 and head.startswith("| motion attention map, 1 pictures (in %) | ") and len(rows) == 7 + 6
    assert {line.count(" | ") for line in (head, *rows)} == {3} and rule == "|---" * 4 + "|" and "1/1" in done.stderr


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def closed(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def wait_for_log(process, temp, pattern: str) -> str:
    """What `pattern` finds in the log of the server that the command started, once it is there."""
    def found():
        return [m for f in temp.glob("*/server.log") for m in re.findall(pattern, f.read_text(errors="replace"))]

    until(lambda: process.poll() is not None or found())
    assert process.poll() is None, process.communicate()
    return found()[0]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("sign, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_server_too(files, sign, code):
    temp = files / "temp"
    temp.mkdir()
    ui = json.loads((files / "workflow.json").read_text())  # a wide blur of many frames takes a minute
    ui["nodes"][1]["widgets_values"] = [64]
    ui["nodes"][4].update(type="ImageBlur", widgets_values=[31, 10.0])
    ui["nodes"][4]["inputs"] = [{"name": "image", "type": "IMAGE", "link": 4}]
    ui["nodes"][1]["inputs"][0]["link"] = 1
    ui["nodes"][2]["inputs"][0]["link"] = 3
    (files / "long.json").write_text(json.dumps(ui))
    Image.effect_noise((512, 512), 80).save(files / "noise.png")
    process = subprocess.Popen([*RUN, "--image", "noise.png", "--workflow", "long.json"], cwd=files, env={**os.environ, "TMPDIR": str(temp)},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(getattr(signal, sign), signal.SIG_DFL))  # a shell's background jobs, and nohup's, inherit some ignored
    try:
        port = int(wait_for_log(process, temp, r"http://127\.0\.0\.1:(\d+)"))
        wait_for_log(process, temp, "got prompt")
        time.sleep(1)
        assert not closed(port) and process.poll() is None
        process.send_signal(getattr(signal, sign))
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code and "Traceback" not in stderr, stderr
    until(lambda: closed(port), 5)
    assert list(temp.iterdir()) == []


def test_a_run_leaves_its_four_files(files):
    done = demo("--image", "picture.png", "--workflow", "workflow.json", "--out", "new/out", cwd=files)
    assert done.returncode == 0, done.stderr
    assert "SaveAnimatedWEBP" in done.stdout or "Save Animated WEBP" in done.stdout
    out = files / "new" / "out"
    assert done.stdout.splitlines()[-4:] == [os.path.join("new", "out", f) for f in ("video.mp4", "video.webp", "contact_sheet.png", "workflow.json")]
    frames, fps = outputs.read_video((out / "video.mp4").read_bytes())
    assert len(frames) == 6 and frames[0].size == (32, 32) and fps == 8
    red = [f.getpixel((9, 9))[0] > 200 for f in frames]
    assert red == [True, False] * 3
    assert len(outputs.read_webp((out / "video.webp").read_bytes())[0]) == 6
    assert Image.open(out / "contact_sheet.png").size == (3 * (33 + outputs.GAP) + outputs.GAP, 2 * (32 + outputs.LABEL + outputs.GAP) + outputs.GAP)
    assert json.loads((out / "workflow.json").read_text())["nodes"][0]["widgets_values"][0].endswith("picture.png")


def test_a_failing_graph_is_one_sentence_that_names_the_node(files):
    ui = json.loads((files / "workflow.json").read_text())
    ui["nodes"][2]["widgets_values"][1] = -3.0
    (files / "bad.json").write_text(json.dumps(ui))
    done = demo("--image", "picture.png", "--workflow", "bad.json", cwd=files)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "Node 3 (SaveAnimatedWEBP)" in done.stderr and "fps" in done.stderr


def test_equal_neighbours_survive_the_webp():
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "red", "blue", "blue", "blue", "blue")]
    data = io.BytesIO()
    frames[0].save(data, "WEBP", save_all=True, append_images=frames[1:], duration=125, lossless=True)
    read, fps = outputs.read_webp(data.getvalue(), 8.0)
    assert [f.getpixel((0, 0)) for f in read] == [f.getpixel((0, 0)) for f in frames] and fps == 8
