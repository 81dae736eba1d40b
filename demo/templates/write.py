"""Writes the workflows for users and their twins for the demo:  python demo/run.py templates.write [--check]

The nodes' inputs, defaults and sizes come from a running host. --check writes nothing, names the files that are stale and
ends with 1 when there are some.
"""
import argparse
import json
import sys

from ..cli import server
from . import graphs, ui

FOLDERS = {False: server.PACK / "workflows", True: server.PACK / "demo" / "workflows"}  # for users, for the demo


def made(info: dict) -> dict:
    """{path: text} of every file."""
    return {folder / f"{name}.json": json.dumps(ui.convert(graph, info), indent=1, ensure_ascii=False) + "\n"
            for demo, folder in FOLDERS.items() for name, graph in graphs(demo).items()}


def stale(files: dict) -> list:
    """Paths whose content is not that of `files`, and workflows that nobody writes any more."""
    there = {path for folder in FOLDERS.values() for path in folder.glob("*.json")}
    return sorted({path for path, text in files.items() if path not in there or path.read_text(encoding="utf-8") != text} | there - set(files))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="templates.write", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, name the stale files")
    check = parser.parse_args(argv).check
    with server.Server() as host:
        files = made(host.object_info())
    changed = stale(files)
    for path in changed:
        print(path.relative_to(server.PACK))
        if check:
            continue
        if path in files:
            path.write_text(files[path], encoding="utf-8")
        else:
            path.unlink()
            path.with_suffix(".jpg").unlink(missing_ok=True)
    if check and changed:
        print("These files are stale: run `python demo/run.py templates.write`.", file=sys.stderr)
    return int(check and bool(changed))
