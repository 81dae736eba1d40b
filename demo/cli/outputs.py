"""What a run leaves behind: the video as MP4 and animated WEBP, a contact sheet, the workflow that can be dropped on the canvas."""
import io
import json
import math
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

GAP, LABEL = 4, 14


class NoVideo(ValueError):
    """The workflow ran but saved nothing that moves."""


def read_webp(data: bytes, fps: float | None = None):
    """(frames, frames a second). Equal neighbours are stored as one long frame: with fps known they are told apart again."""
    picture, frames, lengths = Image.open(io.BytesIO(data)), [], []
    for i in range(getattr(picture, "n_frames", 1)):
        picture.seek(i)
        frames.append(picture.convert("RGB"))
        lengths.append(picture.info.get("duration") or 0)
    unit = int(1000 / fps) if fps else min(lengths) or 125  # int: so the host rounds
    return [f for f, n in zip(frames, lengths) for _ in range(max(1, round(n / unit)))], fps or 1000 / unit


def read_video(data: bytes):
    import av
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        return [f.to_image() for f in container.decode(stream)], float(stream.average_rate or 8)


def write_webp(path: Path, frames, fps: float) -> None:
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0, lossless=True)


def write_mp4(path: Path, frames, fps: float) -> None:
    """H.264, yuv420p so that every player shows it; that needs even sides, a last odd row or column is cut."""
    import av
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = frames[0].width // 2 * 2, frames[0].height // 2 * 2, "yuv420p"
        stream.options = {"crf": "16"}
        for frame in frames:
            picture = frame.crop((0, 0, stream.width, stream.height))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


def contact_sheet(frames, columns: int | None = None, labels=None) -> Image.Image:
    """All frames in a grid, row by row, each under its label (which may have several lines); without labels numbered from 1."""
    columns = columns or math.ceil(math.sqrt(len(frames)))
    labels = labels or [str(i + 1) for i in range(len(frames))]
    label = LABEL * max(text.count("\n") + 1 for text in labels)
    w, h = frames[0].width + GAP, frames[0].height + label + GAP
    sheet = Image.new("RGB", (columns * w + GAP, math.ceil(len(frames) / columns) * h + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for i, (frame, text) in enumerate(zip(frames, labels)):
        x, y = GAP + i % columns * w, GAP + i // columns * h
        draw.text((x, y), text, "black", font)
        sheet.paste(frame, (x, y + label))
    return sheet


def save_clips(rows, path) -> None:
    """A contact sheet with a row for each (label, clip [F,H,W,3] in 0..1); the clips are of one length."""
    pictures = [Image.fromarray((f * 255).round().astype("uint8")) for _, clip in rows for f in clip]
    columns = len(rows[0][1])
    labels = [label if k == 0 else "" for label, _ in rows for k in range(columns)]
    contact_sheet(pictures, columns, labels).save(path, quality=88, optimize=True)


def saved(outputs: dict, *endings: str) -> list:
    """[(node id, record)] of the run's moving pictures with these endings; kept files before previews, which lie in the host's temp folder."""
    records = [(i, r) for i, node in outputs.items() if any(node.get("animated") or ()) for values in node.values() if isinstance(values, (list, tuple))
               for r in values if isinstance(r, dict) and str(r.get("filename", "")).lower().endswith(endings)]
    return sorted(records, key=lambda found: found[1].get("type") != "output")


def write(out: Path, outputs: dict, fetch, graph: dict, workflow: dict) -> list[Path]:
    """Fills the folder `out`; the paths. fetch(record) -> bytes; graph and workflow: API and UI format. A missing kind of video is made from the other's frames."""
    data, found = {}, []
    for kind, endings in (("webp", (".webp",)), ("mp4", (".mp4",)), ("other", (".webm", ".mov", ".mkv", ".png"))):
        if not (records := saved(outputs, *endings)) or kind == "other" and data:
            continue
        node, record = records[0]
        data[kind] = fetch(record)
        fps = graph.get(node, {}).get("inputs", {}).get("fps")
        still = record["filename"].lower().endswith((".webp", ".png"))
        found.append(read_webp(data[kind], fps if isinstance(fps, (int, float)) else None) if still else read_video(data[kind]))
    if not found:
        raise NoVideo("The workflow ran but saved no video. Add a Save Animated WEBP or a Save Video node to it.")
    frames, fps = max(found, key=lambda f: len(f[0]))  # at equal length the WEBP, which may be lossless
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in ("video.mp4", "video.webp", "contact_sheet.png", "workflow.json")]
    for path, kind, writer in ((paths[0], "mp4", write_mp4), (paths[1], "webp", write_webp)):
        if kind in data:
            path.write_bytes(data[kind])
        else:
            writer(path, frames, fps)
    contact_sheet(frames).save(paths[2])
    paths[3].write_text(json.dumps(workflow, indent=1), encoding="utf-8")
    return paths
