"""Runs graphs on a server and says what is wrong with how they end. Import as `firstframe.tests.hostile.verdict`.

Right ends: the graph runs; the host refuses it before anything runs; or a node of the pack stops with a sentence that names the node and says what to
change. Wrong ends: an error of Python, torch or the host out of our code, no end, a dead server.
"""
import itertools
import json
import re
import time
import urllib.error

import firstframe
import torch
from firstframe.demo.cli.server import ServerError
from firstframe.tests.hostile import bases
from safetensors.torch import load_file

OURS = {node.GET_SCHEMA().node_id: node.GET_SCHEMA().display_name.split(" (")[0] for node in firstframe.NODES}
CODE = "/custom_nodes/ComfyUI-FirstFrame/"
PLAIN_WORDS = re.compile(r"mat1 and mat2|does not require grad|object has no attribute|unexpected keyword|positional argument|not supported between|"
                         r"index out of range|weights_only|Expected .* (dtype|tensor)")


def is_our_sentence(error: dict) -> bool:
    """error: the data of the host's execution_error. Ours is a ValueError or RuntimeError that names one of our nodes or a file and ends with advice."""
    message = error["exception_message"].strip()
    named = any(re.search(rf"\b{re.escape(name)}\b", message) for name in OURS.values()) or re.search(r"motion LoRA '|motion module '|The folder '", message)
    advice = re.search(r"[.:;)] [A-Z][^.]* .+\.$|[.] [A-Z].*", message)
    return bool(error["exception_type"] in ("ValueError", "RuntimeError") and named and advice and not PLAIN_WORDS.search(message))


def complaint(error: dict) -> str | None:
    """What is wrong with a run that stopped, None if nothing is."""
    if error["node_type"] not in OURS and not any(CODE in line for line in error["traceback"]):
        return None  # a stock node's own complaint
    if is_our_sentence(error):
        return None
    where = next((re.search(rf"{CODE}(\S+?)\", line (\d+)", line) for line in reversed(error["traceback"]) if CODE in line), None)
    at = f" (below {where[1]}:{where[2]})" if where else ""
    return f"{error['node_type']}: {error['exception_type']}: {error['exception_message'].strip()[:300]}{at}"


def queue(server, graph: dict) -> str | None:
    """The prompt's id; None when the host refuses the graph, or a result of it (it then runs what is left)."""
    try:
        answer = server.post("/prompt", {"prompt": graph})
    except urllib.error.HTTPError as error:
        if error.code != 400:
            raise
        told = json.loads(error.read())
        assert told.get("error") or told.get("node_errors"), told
        return None
    return None if answer["node_errors"] else answer["prompt_id"]


def finished(server, prompt: str, timeout: float) -> dict | None:
    """The host's record of a run; None when there is none in time."""
    end, pause = time.monotonic() + timeout, 0.01
    while time.monotonic() < end:
        entry = server.get(f"/history/{prompt}", timeout=30).get(prompt)
        if entry and entry.get("status"):
            return entry
        time.sleep(pause)
        pause = min(0.2, pause * 1.5)
    server.interrupt()
    return None


def judge(server, cases, timeout: float = 30) -> tuple[list[str], dict]:
    """(a line for each wrong end, {refused, ran, told: how many}). cases: (name, graph); they are queued one after another and judged in that order."""
    wrong, counts = [], {"refused": 0, "ran": 0, "told": 0}
    queued = [(name, queue(server, graph)) for name, graph in cases]
    for name, prompt in queued:
        if prompt is None:
            counts["refused"] += 1
            continue
        try:
            entry = finished(server, prompt, timeout)
        except OSError:
            raise ServerError(f"The server died of {name}.\n{server.tail()}") from None
        if entry is None:
            wrong.append(f"{name}: no end within {timeout:g} s")
            continue
        errors = [data for event, data in entry["status"]["messages"] if event == "execution_error"]
        counts["told" if errors else "ran"] += 1
        wrong += [f"{name}: {said}" for said in map(complaint, errors) if said]
    return wrong, counts


_again = itertools.count()


def run(server, graph) -> dict:
    """The outputs of a graph that must run."""
    prompt = queue(server, graph)
    assert prompt, "the host refuses the graph"
    entry = finished(server, prompt, 120)
    assert entry and entry["status"]["status_str"] == "success", entry and [data for event, data in entry["status"]["messages"] if event == "execution_error"]
    return entry["outputs"]


def plain_bits(server) -> torch.Tensor:
    """The latents of a graph without our nodes, sampled anew in spite of the cache."""
    graph = bases.needed(bases.plain())
    graph["again"] = {"class_type": "HostileValue", "inputs": {"type": "LATENT", "name": f"as it is {next(_again)}", "good": ["latent", 0]}}
    graph["sample"]["inputs"]["latent_image"] = ["again", 0]
    saved = run(server, graph)["save sample"]["latents"][0]
    return load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]
