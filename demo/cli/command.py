"""./scripts/demo: a picture and a prompt become a video on a real ComfyUI server that this command starts and ends."""
import argparse
import importlib
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from . import out_folder, outputs, workflow
from .protocol import GraphError
from .server import PACK, Server, ServerError

PICTURE = PACK / "demo" / "example.png"
WORKFLOW = PACK / "demo" / "workflows" / "01 Picture to video, moves as the prompt says (I2V-Adapter).json"
DEMO_MODEL = "firstframe_demo.safetensors"
TABLES = PACK / "demo" / "tables"


class OptionError(ValueError):
    """An option cannot work; the message is the one sentence that the user gets."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise OptionError(f"{message}; {self.prog} --help lists the options.")


class Progress:
    """The host's progress: one line that is written over on a terminal, a few plain lines elsewhere."""

    def __init__(self, graph: dict, stream=None):
        self.titles = {i: node["_meta"]["title"] for i, node in graph.items()}
        self.stream = stream or sys.stdout
        self.tty, self.last, self.began = self.stream.isatty(), None, time.monotonic()

    def __call__(self, node: str, value: float, total: float) -> None:
        title = self.titles.get(node) or self.titles.get(node.split(".")[0], f"node {node}")
        text = f"{title}: step {value:g}/{total:g}" if total else title
        if self.tty:
            self.stream.write(f"\r\x1b[K{text[:100]}  ({time.monotonic() - self.began:.0f} s)")
        else:
            mark = (node, int(4 * value / total) if total else -1)  # a log wants a line per quarter, not per step
            if mark == self.last:
                return
            self.last = mark
            self.stream.write(text + "\n")
        self.stream.flush()

    def end(self) -> None:
        if self.tty:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


def parse(argv):
    p = Parser(prog="scripts/demo", description=__doc__)
    p.add_argument("--image", metavar="FILE", help="the first frame (default: the demo's example picture)")
    p.add_argument("--prompt", metavar="TEXT", help='text of the node titled "Prompt" (default: the workflow\'s own)')
    p.add_argument("--workflow", metavar="FILE", default=str(WORKFLOW), help=f"a workflow saved by ComfyUI's page (default: demo/workflows/{WORKFLOW.name})")
    p.add_argument("--frames", metavar="N", type=int, help="length of the clip, at least 2 (default: the workflow's own)")
    p.add_argument("--seed", metavar="N", type=int, help="for every seed in the workflow (default: the workflow's own)")
    p.add_argument("--out", metavar="DIR", default="out", help="folder for the results (default: %(default)s)")
    p.add_argument("--comfyui", metavar="VERSION", help="a pinned ComfyUI, fetched when it is not there yet (default: the newest pinned one)")
    p.add_argument("--table", metavar="NAME", help="measure and print one of the README's tables instead; arguments after its name are the table's own")
    return p.parse_args(argv)


def check(options) -> dict:
    """Everything that can be known before the server starts (some 10 s); the workflow."""
    picture = Path(options.image or PICTURE)
    if not picture.is_file():
        raise OptionError(f"There is no image file {str(picture)!r}; give --image an existing PNG, JPEG or WEBP file.")
    try:
        with Image.open(picture) as opened:
            opened.load()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:  # Pillow's plugins raise many kinds
        raise OptionError(f"{str(picture)!r} cannot be read as a picture ({error}); give --image a PNG, JPEG or WEBP file.") from None
    if options.prompt is not None and not options.prompt.strip():
        raise OptionError("--prompt is only spaces; say in a few words what the picture shows and how it moves, or leave the option out.")
    if options.frames is not None and options.frames < 2:
        raise OptionError(f"--frames is {options.frames}, but a video has at least 2 frames; 8 is a good start, 16 the usual length.")
    if options.seed is not None and not 0 <= options.seed < 2 ** 64:
        raise OptionError(f"--seed is {options.seed}, but seeds go from 0 to {2 ** 64 - 1}.")
    if wrong := out_folder.complaint(Path(options.out)):
        raise OptionError(f"--out {options.out!r} {wrong}; give a folder that you may write to, it is made when missing.")
    return workflow.load(options.workflow)


def remark(ui: dict, image) -> str | None:
    """What to say of a given picture before a workflow runs on it; None: nothing."""
    if not any(DEMO_MODEL in (node.get("widgets_values") or ()) for node in ui["nodes"] if workflow.runs(node)):
        return None
    from ..world.belongs import belongs  # imports torch
    with Image.open(image) as picture:
        cut = ImageOps.fit(picture.convert("RGB"), (128, 128))
    if belongs(np.asarray(cut, np.float32) / 255):
        return None
    return (f"{str(image)!r} is none of the demo's drawn pictures (one or two of its shapes, each of one colour, on a background of one): its tiny model cannot hold it, "
            "and the clip will leave it. Real pictures want a real checkpoint: the same workflow in workflows/.")


def run(options) -> int:
    ui = check(options)
    if options.image and (said := remark(ui, options.image)):
        print(said)
    print("Starting ComfyUI ...", flush=True)
    with Server() as server:
        info = server.object_info()
        image = server.upload_image(options.image or PICTURE) if options.image or workflow.takes_picture(ui) else None
        ui = workflow.set_values(ui, info, image=image, prompt=options.prompt, seed=options.seed, frames=options.frames)
        graph = workflow.to_api(ui, info)
        progress = Progress(graph)
        try:
            result = server.run(graph, progress, workflow=ui)
        finally:
            progress.end()
        paths = outputs.write(Path(options.out), result, server.fetch, graph, ui)
    for path in paths:
        print(path)
    return 0


def table(name: str, argv) -> int:
    names = sorted(f.stem for f in TABLES.glob("*.py") if f.stem not in ("__init__", "report"))
    if name not in names:
        raise OptionError(f"There is no table {name!r}; there {'are ' + ', '.join(names) if names else 'is none yet'}.")
    from ..in_process import use_host  # imports torch
    use_host()
    return importlib.import_module(f"firstframe.demo.tables.{name}").main(argv) or 0


def main(argv: list[str]) -> int:
    try:
        if "--table" in argv:
            at = argv.index("--table")
            if at + 1 == len(argv):
                raise OptionError("--table needs the name of a table.")
            return table(argv[at + 1], argv[at + 2:])
        return run(parse(argv))
    except (OptionError, workflow.WorkflowError, outputs.NoVideo, GraphError, ServerError) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nscripts/demo: interrupted; the ComfyUI server is ended.", file=sys.stderr)
        return 130
