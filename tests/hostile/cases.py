"""Every node x every input x every bad value of the input's type, drawn from the schemas. Import as `firstframe.tests.hostile.cases`."""
import copy
from collections.abc import Iterator

from firstframe.tests.hostile.source_nodes import ANY, BAD

MISSING = object()
WIDGETS = ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO")
TYPED = {"none": None, "a list": [1, 2, 3], "a wrapped list": {"__value__": [1, 2]}, "a wrapped pair of texts": {"__value__": {"a": 1}}, "left out": MISSING,
         "a link to nowhere": ["nowhere", 0], "a link to no output": ["model", 99]}  # whatever the type
NUMBERS = {"a text": "many", "NaN": float("nan"), "infinity": float("inf"), "huge": 2**70, "a huge negative": -(2**70), "true": True, "a half": 0.5}
TEXTS = {"empty": "", "blanks": " \n\t", "long": "circle " * 3000, "other scripts": "圆 دائرة ⁂※⁑§¶ 👩‍👩‍👧\u202e\u0000",
         "half a character": "circle \ud800", "brackets": "((circle:1.2", "a number": 5}
MODELS = {  # name: the nodes whose last one puts out another MODEL
    "flow": {"other": {"class_type": "ModelSamplingSD3", "inputs": {"model": ["model", 0], "shift": 3.0}}},
    "EDM": {"other": {"class_type": "ModelSamplingContinuousEDM", "inputs": {"model": ["model", 0], "sampling": "edm", "sigma_max": 120.0, "sigma_min": 0.002}}},
    "v": {"other": {"class_type": "ModelSamplingDiscrete", "inputs": {"model": ["model", 0], "sampling": "v_prediction", "zsnr": True}}},
    "LCM": {"other": {"class_type": "ModelSamplingDiscrete", "inputs": {"model": ["model", 0], "sampling": "lcm", "zsnr": False}}},
    "PCFA": {"other": {"class_type": "PCFAPatch", "inputs": {"model": ["model", 0], "p": 0.5, "seed": 0, "start_percent": 0.0, "end_percent": 1.0}}},
    "motion": {"a module": {"class_type": "FF_MotionModuleLoader", "inputs": {"motion_module": "firstframe_demo_motion.safetensors"}},
               "other": {"class_type": "FF_MotionModuleApply", "inputs": {
                   "model": ["model", 0], "motion_module": ["a module", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}}},
    "windows": {"other": {"class_type": "ContextWindowsManual", "inputs": {"model": ["model", 0], "context_length": 2, "context_overlap": 1,
                "context_schedule": "standard_static", "context_stride": 1,
                                                                           "closed_loop": False, "fuse_method": "pyramid", "dim": 0, "freenoise": False}}},
    "a video model": {"other": {"class_type": "UNETLoader", "inputs": {"unet_name": "wan.safetensors", "weight_dtype": "default"}}},
}


def typed(spec) -> dict:
    """{name: value} that a prompt's JSON can carry, bad for an input of the schema (some are good in disguise: the host converts them)."""
    kind = spec.get_io_type()
    values = dict(TYPED)
    if kind in ("INT", "FLOAT"):
        values |= NUMBERS | {"below": spec.min - 1, "above": spec.max + 1}
    elif kind == "STRING":
        values |= TEXTS
    elif kind == "COMBO":
        values |= {"no choice": "no such choice", "a number": 3, "empty": "", "true": True}
    elif kind == "BOOLEAN":
        values |= {"a text": "off", "a number": 7}
    else:
        values |= {"a text": "text", "a number": 5, "a dict": {"samples": 1}}
    return values


def without(graph: dict, node: str, name: str) -> dict:
    graph = copy.deepcopy(graph)
    graph[node]["inputs"].pop(name, None)
    return graph


def of_input(graph: dict, node: str, spec) -> Iterator[tuple[str, dict]]:
    """(what is bad, the graph with it at one input of one node)."""
    kind, good = spec.get_io_type(), graph[node]["inputs"].get(spec.id)
    for name, value in typed(spec).items():
        bad = without(graph, node, spec.id)
        if value is not MISSING:
            bad[node]["inputs"][spec.id] = value
        yield f"typed {name}", bad
    for name in BAD[kind] | ANY:
        bad = copy.deepcopy(graph)
        bad["bad"] = {"class_type": "HostileValue", "inputs": {"type": kind, "name": name, **({} if kind in WIDGETS else {"good": good})}}
        bad[node]["inputs"][spec.id] = ["bad", 0]
        yield f"linked {name}", bad
    bad = copy.deepcopy(graph)
    bad["stock"] = {"class_type": "PrimitiveInt", "inputs": {"value": 3}} if kind == "MASK" else {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 8, "height": 8}}
    bad[node]["inputs"][spec.id] = ["stock", 0]
    yield "a wire of another type", bad
    if kind == "MODEL":
        for name, nodes in MODELS.items():
            bad = copy.deepcopy(graph) | copy.deepcopy(nodes)
            bad[node]["inputs"][spec.id] = ["other", 0]
            yield f"{name} model", bad
