"""The templates that ComfyUI's template browser offers, and their twins on the demo's own models: written here once, made into
JSON by `python demo/run.py templates.write`. A new one is a function of a Kit in a file of its method, and a line in this list.
"""
from . import animatediff, dynamicrafter, i2v_adapter, i2v_zero, i4vgen, pcfa, pilife
from .graph import Graph
from .kit import Kit

# The best starting point first.
TEMPLATES = [
    i2v_adapter.alone, i2v_adapter.with_own_files, i2v_adapter.with_poses, i2v_adapter.long, i2v_adapter.sdxl,
    pcfa.with_motion, pcfa.alone,
    pilife.alone, pilife.with_lora_and_controlnet,
    i2v_zero.pan,
    animatediff.text, animatediff.camera, animatediff.long,
    i4vgen.chosen, i4vgen.own_picture, i4vgen.first_frame_kept, i4vgen.sparse_ctrl, i4vgen.wan,
    dynamicrafter.picture_512, dynamicrafter.picture_1024, dynamicrafter.two_pictures, dynamicrafter.loop, dynamicrafter.animated,
    dynamicrafter.videocrafter,
]
# Those whose models the demo has no small ones of have no twin; the picture is the other's.
WITHOUT_TWIN = {i4vgen.sparse_ctrl: i4vgen.first_frame_kept, i4vgen.wan: i4vgen.chosen,
                **dict.fromkeys((dynamicrafter.picture_512, dynamicrafter.picture_1024, dynamicrafter.two_pictures, dynamicrafter.loop, dynamicrafter.animated), i2v_adapter.alone),
                dynamicrafter.videocrafter: animatediff.text}


def graphs(demo: bool) -> dict[str, Graph]:
    """By file name without its ending. The number is for the reader: the page shows templates in the order in which the file
    system lists them, by name on some and at random on others."""
    found = {i: template(Kit(demo)) for i, template in enumerate(TEMPLATES, 1) if not (demo and template in WITHOUT_TWIN)}
    return {f"{i:02} {graph.name}": graph for i, graph in found.items()}


def pictured() -> dict[str, str]:
    """{template: the twin whose clip is its picture}, by file name without its ending."""
    names = dict(zip(TEMPLATES, graphs(demo=False), strict=True))
    return {name: names[WITHOUT_TWIN.get(template, template)] for template, name in names.items()}
