"""Pictures of the templates, from the demo's own models:  python demo/run.py templates.thumbnails [NUMBER ...]

Each template's twin is run (of those without one, another's). Four frames of its clip become the square .jpg beside the template, which the host's template
browser shows; the whole clip of the first one, beside its picture, becomes the README's docs/clip.webp.
"""
import argparse

from PIL import Image

from ..cli import outputs, server, workflow
from ..cli.command import PICTURE
from . import pictured
from .write import FOLDERS

SIDE, GAP = 400, 4
CLIP, LARGER = server.PACK / "docs" / "clip.webp", 3


def thumbnail(frames) -> Image.Image:
    """Four frames in a square, evenly spread over the clip, the first and the last among them."""
    side = (SIDE - GAP) // 2
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    for i in range(4):
        frame = frames[round(i * (len(frames) - 1) / 3)].resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(frame, (i % 2 * (side + GAP), i // 2 * (side + GAP)))
    return sheet


def beside(picture: Image.Image, frames, larger: int) -> list[Image.Image]:
    """The picture on the left, the clip on the right."""
    width, height = (larger * n for n in frames[0].size)
    sheets = [Image.new("RGB", (2 * width + 2 * GAP, height), "white") for _ in frames]
    for sheet, frame in zip(sheets, frames):
        for x, part in ((0, picture.convert("RGB")), (width + 2 * GAP, frame)):
            sheet.paste(part.resize((width, height), Image.Resampling.LANCZOS), (x, 0))
    return sheets


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="templates.thumbnails", description=__doc__.splitlines()[0])
    parser.add_argument("number", type=int, nargs="*", help="of the templates, all when left out")
    chosen = parser.parse_args(argv).number
    with server.Server() as host:
        info, image = host.object_info(), host.upload_image(PICTURE)
        for number, (name, twin) in enumerate(pictured().items(), 1):
            if chosen and number not in chosen:
                continue
            ui = workflow.load(FOLDERS[True] / f"{twin}.json")
            graph = workflow.to_api(workflow.set_values(ui, info, image=image if workflow.takes_picture(ui) else None), info)
            node, record = outputs.saved(host.run(graph), ".webp")[0]
            fps = graph[node]["inputs"]["fps"]
            frames, _ = outputs.read_webp(host.fetch(record), fps)
            target = FOLDERS[False] / f"{name}.jpg"
            thumbnail(frames).save(target, quality=85, optimize=True)
            print(target.relative_to(server.PACK))
            if number == 1:
                CLIP.parent.mkdir(exist_ok=True)
                with Image.open(PICTURE) as picture:
                    first, *rest = beside(picture, frames, LARGER)
                first.save(CLIP, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, quality=85, method=6)
                print(CLIP.relative_to(server.PACK))
    return 0
