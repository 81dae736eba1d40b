"""The workflow files that the pack brings along, and how tests make them small. Import as `firstframe.tests.workflows`."""
import numpy as np
from firstframe.demo.cli import workflow
from firstframe.demo.cli.server import PACK
from firstframe.tests import graphs

PICTURE = PACK / "demo" / "example.png"
FOR_USERS = sorted((PACK / "workflows").glob("*.json"))
FOR_DEMO = sorted((PACK / "demo" / "workflows").glob("*.json"))
ALL = [*FOR_USERS, *FOR_DEMO]
ON_DEMO_MODELS = [path for path in ALL if "on Wan" not in path.name]  # Wan's steps run in tests/nodes: the host's text encoder for it has but one size, 5 billion weights
SMALL = {("KSampler", "steps"): 2, ("FrameSimilarityPrior", "steps"): 2, ("FF_I2VZero", "steps"): 10, ("MotionAwareInversion", "steps"): 8,
         ("BasicScheduler", "steps"): 3, ("FF_AnchorImageSearch", "draft_steps"): 1, ("FF_AnimateAnchor", "steps"): 3, ("FF_AnimateAnchor", "frames"): 3,
         ("FF_DynamiCrafterLoader", "version"): "auto"}  # widgets by node type
TINY = {**SMALL, ("ImageScale", "width"): 128, ("ImageScale", "height"): 128, ("FF_PictureToFrames", "frames"): 3, ("FrameSimilarityPrior", "frames"): 3,
        ("FF_I2VZero", "frames"): 3, ("EmptyLatentImage", "width"): 128, ("EmptyLatentImage", "height"): 128, ("EmptyLatentImage", "batch_size"): 3,
        ("FF_DynamiCrafterConditioning", "width"): 128, ("FF_DynamiCrafterConditioning", "height"): 128, ("FF_DynamiCrafterConditioning", "frames"): 3,
        **{("FF_VideoCrafterConditioning", widget): value for widget, value in (("width", 128), ("height", 128), ("frames", 3))}, ("ImageFromBatch", "length"): 3}
LONG = {("EmptyLatentImage", "batch_size"): 20, ("FrameSimilarityPrior", "frames"): 20, ("ContextWindowsManual", "context_length"): 15}  # two windows, with a clean first frame in each


def name(path) -> str:
    return path.relative_to(PACK).as_posix()


def change(ui: dict, info: dict, values: dict) -> dict:
    """The same UI-format graph with other widget values, {(node type, widget): value}."""
    for node in filter(workflow.runs, ui["nodes"]):
        for widget, place, _ in workflow.widgets(node, info[node["type"]]["input"]):
            if (node["type"], widget) in values:
                node["widgets_values"][place] = values[node["type"], widget]
    return ui


def with_demo_models(graph: dict) -> dict:
    """An API-format graph for SD1.5, on the demo's files."""
    loaders = [i for i, node in graph.items() if node["class_type"] == "CheckpointLoaderSimple"]
    for node in graph.values():
        if node["class_type"] in graphs.FILES:
            widget, file = graphs.FILES[node["class_type"]]
            if not node["inputs"][widget].startswith("firstframe_demo"):
                node["inputs"][widget] = graphs.VIDEO if "videocrafter" in node["inputs"][widget] else file
    for i in [i for i, node in graph.items() if node["class_type"] == "FF_RewardModelLoader"]:
        pair = {key: node for key, node in graphs.clip_score().items() if key != "model"}
        pair["projection"]["inputs"] |= {"model": [loaders[0], 0], "clip": [loaders[0], 1]}
        graph |= {i: pair.pop("reward"), **pair}
    if videos := {i for i, node in graph.items() if node["class_type"] == "FF_DynamiCrafterLoader"}:  # its small file has nothing but the UNet
        towers = {name: node for name, node in graphs.dynamicrafter("").items() if name in ("model", "vision", "vae")}
        text = {i for i, node in graph.items() if node["class_type"] == "CLIPLoader"}
        ours = {**{(i, 0): ["model", 1] for i in text}, **{(i, n): link for i in videos for n, link in ((1, ["model", 1]), (2, ["vae", 0]), (3, ["vision", 0]))}}
        for node in graph.values():
            node["inputs"] = {k: ours.get(tuple(v), v) if isinstance(v, list) else v for k, v in node["inputs"].items()}
        return {i: node for i, node in graph.items() if i not in text} | towers
    if not any(node["class_type"] == "VAELoader" for node in graph.values()):
        for node in graph.values():
            node["inputs"] = {k: ["vae", 0] if isinstance(v, list) and v[0] in loaders and v[1] == 2 else v for k, v in node["inputs"].items()}
        graph["vae"] = graphs.LOADERS["vae"]
    return graph


def small_graph(path, info: dict, image: str, **values) -> dict:
    """API format, quick to run: few steps; the SD1.5 ones on the demo's models, 128 pixels, three frames (long ones two windows). values as for the demo command."""
    ui = change(workflow.load(path), info, {**(SMALL if path in FOR_DEMO else TINY), **(LONG if "long" in path.name else {})})
    return with_demo_models(workflow.to_api(workflow.set_values(ui, info, image=image if workflow.takes_picture(ui) else None, **values), info))


def frames_of(graph: dict) -> int:
    lengths = workflow.clips(node["class_type"] for node in graph.values())
    return next(node["inputs"][lengths[node["class_type"]]] for node in graph.values() if node["class_type"] in lengths)


def difference(a, b) -> float:
    """Mean absolute difference of two Pillow pictures, 0 to 1."""
    return float(np.abs(np.asarray(a.convert("RGB"), float) - np.asarray(b.convert("RGB"), float)).mean() / 255)
