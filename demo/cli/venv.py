"""The virtual environment .venv/ in the checkout: pinned packages, installed again only when what they should be changes.

Standard library only: it runs before anything is installed.
"""
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).absolute().parents[1]
ROOT = DEMO.parent
VENV, HOSTS = ROOT / ".venv", ROOT / ".host"
LOCK = DEMO / "requirements-dev.txt"
REPAIR = DEMO / "cli" / "torch_family.py"


class Problem(Exception):
    """The environment cannot be made; the message is the one sentence that the user gets."""


def python() -> Path:
    return VENV / "bin" / "python"


def clean_environment() -> dict:
    """The caller's settings that would send pip or Python to other packages are left out."""
    return {**{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}, "PIP_USER": "0"}


def quietly(*command):
    return subprocess.run([*map(str, command)], env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False)


def last_words(output: str) -> str:
    """What a failed command complained about last, without its full stop."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no message"]
    errors = [line[6:].strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines)[-1].rstrip(".")


def pip(what: str, advice: str, *arguments) -> None:
    """One run of .venv's pip; a failure becomes a sentence: 'Could not <what> (pip: ...); <advice>.'"""
    done = quietly(python(), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments)
    if done.returncode:
        raise Problem(f"Could not {what} (pip: {last_words(done.stdout)}); {advice}.")


def make_venv() -> None:
    if python().exists():
        return
    shutil.rmtree(VENV, ignore_errors=True)  # half made, or its Python is gone
    done = quietly(sys.executable, "-m", "venv", VENV)
    if done.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise Problem(f"{sys.executable} cannot make a virtual environment in {VENV} ({last_words(done.stdout)}); "
                      "install its venv module (on Debian: apt-get install python3-venv) or make room on the disk.")


def install(host_name: str, host_requirements: list) -> None:
    """Our pinned packages and what the host asks for beyond them, unless the stamp says that these very ones are there."""
    recipe = [*(file.read_text(encoding="utf-8") for file in (LOCK, REPAIR, Path(__file__))), *host_requirements]
    wanted, stamp = hashlib.sha256("\n".join(recipe).encode()).hexdigest(), VENV / "stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print("Installing packages into .venv (only when they change; the first time takes minutes) ...", flush=True)
    stamp.unlink(missing_ok=True)
    advice = "check the network connection and the free disk space, then run this again"
    torch = next(line for line in LOCK.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
    pip("install torch", advice, "install", torch)  # with what it needs: for a CUDA build that is a lot that no list here has
    pip("install the packages of demo/requirements-dev.txt", advice, "install", "--no-deps", "--requirement", LOCK)
    if host_requirements:
        pip(f"install the packages that {host_name} asks for", advice, "install", *host_requirements)
    done = quietly(python(), REPAIR)
    if done.returncode:
        raise Problem(f"torch, torchvision and torchaudio do not work together in .venv ({last_words(done.stdout)}); delete .venv and run this again.")
    stamp.write_text(wanted)


@contextlib.contextmanager
def alone():
    """Two commands started at once must not install into one .venv: the second waits."""
    import fcntl
    HOSTS.mkdir(exist_ok=True)
    with open(HOSTS / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("Waiting for another command that prepares .venv ...", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
