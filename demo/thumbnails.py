"""Thumbnails of the workflows for the host's template browser, from the demo's own models:  python demo/run.py thumbnails

Each workflow of workflows/ has a twin of the same name in demo/workflows/; the twin is run and four frames of its clip
become the square .jpg beside the workflow.
"""
import argparse

from PIL import Image

from .cli import outputs, workflow
from .cli.command import PICTURE
from .cli.server import PACK, Server

SIDE, GAP = 400, 4


def thumbnail(frames) -> Image.Image:
    """Four frames in a square, evenly spread over the clip, the first and the last among them."""
    side = (SIDE - GAP) // 2
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    for i in range(4):
        frame = frames[round(i * (len(frames) - 1) / 3)].resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(frame, (i % 2 * (side + GAP), i // 2 * (side + GAP)))
    return sheet


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="thumbnails", description=__doc__).parse_args(argv)
    with Server() as server:
        info, image = server.object_info(), server.upload_image(PICTURE)
        for target in sorted((PACK / "workflows").glob("*.json")):
            ui = workflow.load(PACK / "demo" / "workflows" / target.name)
            graph = workflow.to_api(workflow.set_values(ui, info, image=image if workflow.takes_picture(ui) else None), info)
            node, record = outputs.saved(server.run(graph), ".webp")[0]
            frames, _ = outputs.read_webp(server.fetch(record), graph[node]["inputs"]["fps"])
            thumbnail(frames).save(target.with_suffix(".jpg"), quality=85, optimize=True)
            print(target.with_suffix(".jpg").relative_to(PACK))
    return 0
