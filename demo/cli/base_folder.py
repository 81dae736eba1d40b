"""The folder that a started server works in: custom_nodes with this pack, models with the demo's weights."""
import shutil
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1]
PACK = DEMO.parent


def place(source: Path, target: Path) -> None:
    """A link, or a copy where links are not allowed (Windows without developer mode, some network drives)."""
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except (OSError, NotImplementedError):
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "out"))
        else:
            shutil.copy2(source, target)


def fill(base: Path, names, custom_nodes=()) -> None:
    """This pack under each of the names, the demo's model class, further folders of custom nodes, the demo's weights, the demo's video."""
    for folder in ("custom_nodes", "input", "output", "models/checkpoints", "models/vae"):
        (base / folder).mkdir(parents=True)
    for name in names:
        place(PACK, base / "custom_nodes" / name)
    place(DEMO / "comfy_support", base / "custom_nodes" / "firstframe_demo_support")
    for folder in custom_nodes:
        place(folder, base / "custom_nodes" / folder.name)
    for file in (DEMO / "weights").glob("*/*.safetensors"):
        (base / "models" / file.parent.name).mkdir(exist_ok=True)
        place(file, base / "models" / file.parent.name / file.name)
    for video in DEMO.glob("*.mp4"):
        shutil.copy2(video, base / "input")  # the host reads no link that leads out of it
