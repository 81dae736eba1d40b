"""The templates that ComfyUI's template browser offers, and their twins on the demo's own models: written here once, made into
JSON by `python demo/run.py templates.write`. A new one is a function of a Kit in a file of its method, and a line in this list.
"""
from . import animatediff, i2v_adapter, i2v_zero, i4vgen, pcfa, pilife
from .graph import Graph
from .kit import Kit

# The best starting point first.
TEMPLATES = [
    i2v_adapter.alone, i2v_adapter.with_own_files, i2v_adapter.with_poses, i2v_adapter.long, i2v_adapter.sdxl,
    pcfa.with_motion, pcfa.alone,
    pilife.alone, pilife.with_lora_and_controlnet,
    i2v_zero.pan,
    animatediff.text, animatediff.camera, animatediff.long,
    i4vgen.chosen, i4vgen.own_picture,
]


def graphs(demo: bool) -> dict[str, Graph]:
    """By file name without its ending. The number is for the reader: the page shows templates in the order in which the file
    system lists them, by name on some and at random on others."""
    found = (template(Kit(demo)) for template in TEMPLATES)
    return {f"{i:02} {graph.name}": graph for i, graph in enumerate(found, 1)}
