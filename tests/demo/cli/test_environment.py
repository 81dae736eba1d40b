"""How the two commands prepare themselves: what goes wrong is one sentence, and what is there is not made again."""
import hashlib
import io
import os
import re
import stat
import subprocess
import sys
import tarfile

import pytest
from firstframe.demo.cli import environment, hosts, venv
from firstframe.demo.cli.venv import ROOT, Problem

SCRIPTS = [ROOT / "scripts" / "demo", ROOT / "scripts" / "test"]


def command(folder, name, text):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def only_path(tmp_path):
    """A PATH with nothing but what the scripts' first lines need; pythons are added by the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, places in (("bash", ("/bin", "/usr/bin")), ("dirname", ("/usr/bin", "/bin"))):
        folder.joinpath(name).symlink_to(next(f"{p}/{name}" for p in places if os.path.exists(f"{p}/{name}")))
    return folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
@pytest.mark.parametrize("version, found", [("3.9", "3.9 (python3)"), (None, "none at all")])
def test_an_old_python_is_one_sentence(tmp_path, script, version, found):
    path = only_path(tmp_path)
    if version:
        command(path, "python3", f"echo {version} 0")
    done = subprocess.run([script], env={"PATH": str(path)}, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "need Python 3.10 or newer" in done.stderr and f"found {found};" in done.stderr


def test_a_newer_python_further_on_is_taken(tmp_path):
    path = only_path(tmp_path)
    command(path, "python3", "echo 3.9 0")
    command(path, "python3.12", 'case "$1" in -c) echo 3.12 1;; *) echo ran "$@";; esac')
    done = subprocess.run([SCRIPTS[0], "--seed", "4"], env={"PATH": str(path)}, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert re.fullmatch(r"ran .+/demo/run\.py cli\.environment demo --seed 4\n", done.stdout), done


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """No host around, .host/ in a temporary folder, and a pip that serves `archive` (None: as if there were no network)."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(hosts, "HOSTS", tmp_path / ".host")
    monkeypatch.setattr(hosts, "ROOT", tmp_path / "checkout")
    calls = []

    def serve(archive):
        def pip(what, advice, *arguments):
            calls.append(what)
            (tmp_path / ".host").joinpath(arguments[arguments.index("--dest") + 1], "c-1.tar.gz").write_bytes(archive)

        monkeypatch.setattr(hosts, "pip", pip)
        monkeypatch.setattr(hosts, "PINNED", {"1.0": ("1", hashlib.sha256(archive).hexdigest())})
        return calls

    return serve


def archive_of(**files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


GOOD = archive_of(**{"c-1/README.md": "not this", "c-1/vendor/ComfyUI/main.py": "print()", "c-1/vendor/ComfyUI/comfy/a.py": ""})


def test_a_host_is_unpacked_once_and_again_when_it_is_not_whole(elsewhere, tmp_path):
    calls = elsewhere(GOOD)
    folder = hosts.pinned("1.0")
    assert sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()) == [".unpacked", "comfy/a.py", "main.py"]
    assert hosts.pinned("1.0") == folder and len(calls) == 1
    (folder / ".unpacked").unlink()
    (folder / "left-over.py").write_text("")
    assert hosts.pinned("1.0") == folder and len(calls) == 2 and not (folder / "left-over.py").exists()
    assert [f.name for f in (tmp_path / ".host").iterdir()] == ["1.0"]


def test_a_wrong_hash_is_one_sentence_and_nothing_is_unpacked(elsewhere, monkeypatch):
    elsewhere(GOOD)
    monkeypatch.setattr(hosts, "PINNED", {"1.0": ("1", "0" * 64)})
    right, found = "0" * 64, hashlib.sha256(GOOD).hexdigest()
    with pytest.raises(Problem, match=f"^The downloaded archive of ComfyUI should have the SHA-256 {right}, it has {found}; [^\n]*$"):
        hosts.pinned("1.0")
    assert not list(hosts.HOSTS.iterdir())


def test_a_failed_download_is_one_sentence(elsewhere, monkeypatch):
    """The real pip, told to look nowhere."""
    elsewhere(GOOD)
    monkeypatch.setattr(hosts, "pip", venv.pip)
    monkeypatch.setattr(venv, "python", lambda: sys.executable)
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Problem) as caught:
        hosts.pinned("1.0")
    message = r"Could not download ComfyUI 1\.0 \([^\n]*\(pip: No matching distribution found for [^\n]*\); check the network connection, or set [^\n]*"
    assert re.fullmatch(message, str(caught.value))


@pytest.mark.parametrize("arguments, words", [
    (["--comfyui", "9.9"], "--comfyui knows the versions 0.30.0, 0.27.0"),
    (["--comfyui="], "got ''"),
])
def test_an_unknown_version_is_one_sentence(arguments, words):
    done = subprocess.run([SCRIPTS[0], *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_wrong_comfyui_path_is_one_sentence(tmp_path):
    done = subprocess.run([SCRIPTS[1]], env={**os.environ, "COMFYUI_PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "COMFYUI_PATH should name a ComfyUI folder" in done.stderr and str(tmp_path) in done.stderr


def test_whose_comfyui(elsewhere, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "comfy").mkdir(parents=True)
        (tmp_path / name / "main.py").write_text("")
    assert hosts.own() is None
    monkeypatch.setattr(hosts, "ROOT", tmp_path / "a" / "custom_nodes" / "any name")
    assert hosts.own() == tmp_path / "a"
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "b"))
    assert hosts.own() == tmp_path / "b"


def test_the_hosts_requirements_come_without_the_torch_family(tmp_path):
    (tmp_path / "requirements.txt").write_text("torch\ntorchsde\n# note\n\ntorchvision>=0.1\ntorchaudio # sound\nnumpy>=1.25.0\n")
    assert hosts.requirements(tmp_path) == ["torchsde", "numpy>=1.25.0"]
    assert hosts.requirements(tmp_path / "none") == []


def test_take_version():
    assert environment.take_version(["--seed", "1"]) == (None, ["--seed", "1"])
    assert environment.take_version(["a", "--comfyui", "0.27.0", "b"]) == ("0.27.0", ["a", "b"])
    assert environment.take_version(["--comfyui=0.27.0"]) == ("0.27.0", [])


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """.venv/ in a temporary folder and nothing really installed; the list of what was."""
    done = []
    monkeypatch.setattr(venv, "VENV", tmp_path)
    monkeypatch.setattr(venv, "pip", lambda what, advice, *arguments: done.append(what))
    monkeypatch.setattr(venv, "quietly", lambda *c: subprocess.CompletedProcess(c, 0, ""))
    return done


def test_packages_are_installed_only_when_the_lists_change(steps):
    venv.install("the host", ["numpy"])
    assert steps == ["install torch", "install the packages of demo/requirements-dev.txt", "install the packages that the host asks for"]
    venv.install("the host", ["numpy"])
    assert len(steps) == 3
    venv.install("the host", ["numpy>=2"])
    assert len(steps) == 6


def test_a_failed_installation_is_tried_again(steps, monkeypatch):
    venv.install("the host", [])
    monkeypatch.setattr(venv, "quietly", lambda *c: subprocess.CompletedProcess(c, 1, "Traceback\ntorchvision cannot be imported\n"))
    for _ in range(2):
        with pytest.raises(Problem, match=r"do not work together in .venv \(torchvision cannot be imported\); delete .venv"):
            venv.install("the host", ["numpy"])
    assert len(steps) == 2 + 3 + 3


def test_everything_is_pinned_exactly():
    lines = [line for line in venv.LOCK.read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r'[\w.-]+==[\w.]+(; python_version (<|>=) "3\.11")?', line)] == []
