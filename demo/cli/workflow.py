"""From the graph as the page saves it (UI format, version 0.4) to the graph that the server runs (API format).

The front end alone can do that in ComfyUI; these are its rules, as far as graphs without subgraphs need them. Pure
functions of the graph and of /object_info.
"""
import copy
import json
from pathlib import Path

MUTED, BYPASSED = 2, 4
NOTES = ("Note", "MarkdownNote")
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", "COLORS", "WEBCAM", "IMAGECOMPARE", "BOUNDING_BOX", "BOUNDING_BOXES", "CURVE", "RANGE"}
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
AFTER_GENERATE = ("fixed", "increment", "decrement", "randomize", "increment-wrap")
SEEDS = ("seed", "noise_seed")
TEXTS = {"CLIPTextEncode": "text", "FF_MotionTokens": "text", "PrimitiveStringMultiline": "value"}  # nodes that may be titled "Prompt", and their widget
# nodes that are told the clip's length, and by which widget
CLIPS = {"FF_PictureToFrames": "frames", "FrameSimilarityPrior": "frames", "FF_I2VZero": "frames", "FF_AnimateAnchor": "frames", "FF_DynamiCrafterConditioning": "frames",
         "FF_VideoCrafterConditioning": "frames",
         "EmptyLatentImage": "batch_size"}


class WorkflowError(ValueError):
    """The workflow file cannot be run as it is; the message says what to change."""


def load(path) -> dict:
    """Reads a workflow file and refuses what cannot be converted."""
    try:
        ui = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkflowError(f"There is no workflow file {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WorkflowError(f"{str(path)!r} is not a workflow: it should be JSON saved by ComfyUI's page ({error}).") from None
    if not isinstance(ui, dict) or not isinstance(ui.get("nodes"), list) or not all(isinstance(link, list) for link in ui.get("links") or []):
        what = "the API format" if isinstance(ui, dict) and any(isinstance(v, dict) and "class_type" in v for v in ui.values()) else "other JSON"
        raise WorkflowError(f"{str(path)!r} should be a workflow in UI format (version 0.4, with 'nodes' and 'links'), it is {what}. Save it in ComfyUI with File > Save.")
    if (ui.get("definitions") or {}).get("subgraphs"):
        raise WorkflowError(f"{str(path)!r} contains subgraphs, which only ComfyUI's page can run. Unpack them there (right click, Unpack Subgraph) and save again.")
    return ui


def name_of(node: dict) -> str:
    return f"{node.get('title') or node['type']} (node {node['id']})"


def inputs_of(spec: dict) -> list:
    """[(name, type, options)] in the order of /object_info: required, then optional. A list of choices is a COMBO."""
    out = []
    for group in ("required", "optional"):
        for name, entry in (spec.get(group) or {}).items():
            options = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
            if isinstance(entry[0], list):
                out.append((name, "COMBO", {"options": entry[0], **options}))
            else:
                out.append((name, entry[0], options))
    return out


def default_of(kind: str, options: dict):
    if "default" in options:
        return options["default"]
    choices = options.get("options") or [None]
    return choices[0]["key"] if kind == DYNAMIC else choices[0] if kind == "COMBO" else "" if kind == "STRING" else None


def widgets(node: dict, spec: dict) -> list:
    """[(name, place in widgets_values or None, value)]: the values are saved by position, with extras that are no inputs."""
    values = node.get("widgets_values") or []
    if isinstance(values, dict):  # a few packs save by name
        return [(name, name, values.get(name, default_of(kind, o))) for name, kind, o in inputs_of(spec) if kind in WIDGET_TYPES]
    out, at = [], 0

    def take(entries, prefix=""):
        nonlocal at
        for name, kind, options in entries:
            if options.get("forceInput") or kind not in WIDGET_TYPES and kind != DYNAMIC:
                continue
            value = values[at] if at < len(values) else default_of(kind, options)
            out.append((prefix + name, at if at < len(values) else None, value))
            at += 1
            if kind == DYNAMIC:
                chosen = [o for o in options.get("options", []) if o["key"] == value]
                take(inputs_of(chosen[0]["inputs"]) if chosen else [], f"{prefix}{name}.")
            elif options.get("control_after_generate") or kind == "INT" and name in SEEDS:
                if at < len(values) and values[at] in AFTER_GENERATE:
                    at += 1
                    if kind == "COMBO" and at < len(values) and values[at] == "":  # its filter text
                        at += 1
            elif any(options.get(k) for k in ("image_upload", "video_upload", "audio_upload", "animated_image_upload")) and at < len(values):
                at += 1  # the upload button

    take(inputs_of(spec))
    return out


class Graph:
    """Nodes and links by id, and where a link really comes from."""

    def __init__(self, ui: dict):
        self.nodes = {n["id"]: n for n in ui["nodes"]}
        self.links = {link[0]: link for link in ui.get("links") or []}

    def source(self, link_id, seen=()):
        """(node, output slot) behind a link, through Reroute and bypassed nodes; None when nothing is there."""
        link = self.links.get(link_id)
        node = self.nodes.get(link[1]) if link else None
        if node is None or link_id in seen or node.get("mode") == MUTED:
            return None
        slot, entries = link[2], node.get("inputs") or []
        if node["type"] == "Reroute":
            return self.source(entries[0].get("link"), (*seen, link_id)) if entries else None
        if node.get("mode") != BYPASSED:
            return node, slot
        kind = (node.get("outputs") or [])[slot]["type"]
        same = [e for e in entries[slot:slot + 1] + entries if e.get("type") == kind or "*" in (e.get("type"), kind)]
        return self.source(same[0].get("link"), (*seen, link_id)) if same else None


def spec_of(node: dict, object_info: dict) -> dict:
    try:
        return object_info[node["type"]]["input"]
    except KeyError:
        raise WorkflowError(f"This ComfyUI has no node of type {node['type']!r}, which {name_of(node)} is. Install its pack, or update ComfyUI or the workflow.") from None


def runs(node: dict) -> bool:
    return node["type"] not in (*NOTES, "Reroute", "PrimitiveNode") and node.get("mode") not in (MUTED, BYPASSED)


def to_api(ui: dict, object_info: dict) -> dict:
    """The API-format graph. Links win over widget values; what is muted or a note is left out."""
    graph, api = Graph(ui), {}
    for node in filter(runs, ui["nodes"]):
        values = {name: {"__value__": v} if isinstance(v, list) else v for name, _, v in widgets(node, spec_of(node, object_info)) if v is not None}
        for entry in node.get("inputs") or []:
            found = graph.source(entry.get("link")) if entry.get("link") is not None else None
            if found and found[0]["type"] == "PrimitiveNode":
                values[entry["name"]] = found[0]["widgets_values"][0]
            elif found:
                values[entry["name"]] = [str(found[0]["id"]), found[1]]
        api[str(node["id"])] = {"class_type": node["type"], "inputs": values, "_meta": {"title": node.get("title") or object_info[node["type"]].get("display_name") or node["type"]}}
    return api


def clips(kinds) -> dict:
    """CLIPS of a graph with nodes of these kinds: an empty latent is a batch of candidates where another node makes the clip."""
    kinds = set(kinds)
    return {kind: widget for kind, widget in CLIPS.items() if kind != "EmptyLatentImage" or not kinds & (CLIPS.keys() - {kind})}


def takes_picture(ui: dict) -> bool:
    return any(node["type"] == "LoadImage" and runs(node) for node in ui["nodes"])


def set_values(ui: dict, object_info: dict, *, image=None, prompt=None, seed=None, frames=None) -> dict:
    """A copy of the graph with these values: LoadImage's picture, the text of the nodes titled "Prompt", every seed, the clip's length."""
    ui = copy.deepcopy(ui)
    graph, done, lengths = Graph(ui), set(), clips(node["type"] for node in ui["nodes"] if runs(node))
    for node in filter(runs, ui["nodes"]):
        titled = node["type"] in TEXTS and (node.get("title") or "").strip().lower() == "prompt"
        wanted = {
            "image": image if node["type"] == "LoadImage" else None,
            **({TEXTS[node["type"]]: prompt} if titled else {}),
            **({lengths[node["type"]]: frames} if node["type"] in lengths else {}),
            **dict.fromkeys(SEEDS, seed),
        }
        entries = {e["name"]: e for e in node.get("inputs") or []}
        for name, at, _ in widgets(node, spec_of(node, object_info)):
            value = wanted.get(name)
            if value is None or at is None:
                continue
            found = graph.source(entries[name]["link"]) if entries.get(name, {}).get("link") is not None else None
            if found and found[0]["type"] != "PrimitiveNode":
                continue  # computed in the graph
            values, place = (found[0]["widgets_values"], 0) if found else (node["widgets_values"], at)
            values[place] = value
            if name in SEEDS and len(values) > place + 1 and values[place + 1] in AFTER_GENERATE:
                values[place + 1] = "fixed"  # so that the saved graph repeats this very run
            done.add("seed" if name in SEEDS else "frames" if name == lengths.get(node["type"]) else "text" if name == TEXTS.get(node["type"]) else name)
    missing = {"image": (image, "a LoadImage node"), "text": (prompt, 'a CLIPTextEncode node titled "Prompt"'), "seed": (seed, "a node with a seed"),
               "frames": (frames, "a node that is told the clip's length (Picture to Frames, Frame Similarity Prior, I2V-Zero, Animate Anchor Image, Empty Latent Image)")}
    for name, (value, what) in missing.items():
        if value is not None and name not in done:
            raise WorkflowError(f"--{'prompt' if name == 'text' else name} needs {what} in the workflow, and there is none that is on.")
    return ui
