"""A graph as the JSON that ComfyUI's page saves (UI format, version 0.4). Pure."""
from . import files, layout, schema
from .graph import Graph, Node

BYPASSED = 4
OPTIONAL = {"shape": 7}  # how the page marks the socket
NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}


def entry(name: str, kind: str, optional: bool, **rest) -> dict:
    return {"localized_name": name, "name": name, **(OPTIONAL if optional else {}), "type": kind, **rest}


def inputs_of(node: Node, spec: dict) -> list:
    """Sockets first, then widgets; links are filled in later."""
    out = [entry(name, kind, optional, link=None) for name, kind, optional in schema.sockets(spec)]
    for name, kind, optional, options, _ in schema.widgets(spec, node.values):
        out.append(entry(name, kind, optional, widget={"name": name}, link=None))
        if schema.is_upload(options):
            out.append(entry("upload", "IMAGEUPLOAD", False, widget={"name": "upload"}, link=None))
    return out


def node_of(node: Node, number: int, box: layout.Box, spec: dict) -> dict:
    properties, file = {"Node name for S&R": node.kind}, files.file_of(node)
    if file and file.metadata:
        properties["models"] = [file.metadata]
    return {"id": number, "type": node.kind, "pos": [box.x, box.y], "size": [box.width, box.height], "flags": {}, "order": number - 1,
            "mode": BYPASSED if node.bypassed else 0, "inputs": inputs_of(node, spec),
            "outputs": [entry(name, kind, False, links=None) for name, kind in zip(spec["output_name"], spec["output"])],
            **({"title": node.title} if node.title else {}), "properties": properties, "widgets_values": schema.saved(spec, node.values)}


def note_of(text: str, box: layout.Box) -> dict:
    return {"id": 1, "type": "MarkdownNote", "pos": [box.x, box.y], "size": [box.width, box.height], "flags": {}, "order": 0, "mode": 0, "inputs": [],
            "outputs": [], "title": "Read me", "properties": {}, "widgets_values": [text], **NOTE_COLOURS}


def link(number: int, source: dict, output: str, target: dict, name: str) -> list:
    """Enters the link at both ends."""
    out = next((i for i, e in enumerate(source["outputs"]) if e["name"] == output), None)
    to = next((i for i, e in enumerate(target["inputs"]) if e["name"] == name), None)
    if out is None or to is None:
        raise schema.TemplateError(f"{source['type']} has no output {output!r}." if out is None else f"{target['type']} has no input {name!r}.")
    source["outputs"][out]["links"] = [*(source["outputs"][out]["links"] or []), number]
    target["inputs"][to]["link"] = number
    return [number, source["id"], out, target["id"], to, source["outputs"][out]["type"]]


def convert(graph: Graph, info: dict) -> dict:
    """info: the host's /object_info."""
    if missing := sorted({node.kind for node in graph.nodes} - set(info)):
        raise schema.TemplateError(f"This ComfyUI has no node {', '.join(missing)}, which {graph.name!r} needs.")
    placed = layout.place(graph, info)
    if placed.width > layout.WIDEST:
        raise schema.TemplateError(f"{graph.name!r} would be {placed.width:g} px wide, and {layout.WIDEST} is the most: the page would open it too small to read.")
    made = {node: node_of(node, number, placed.nodes[node], info[node.kind]) for number, node in enumerate(graph.nodes, 2)}
    links = []
    for node in graph.nodes:
        for name, output in node.links.items():
            if output.node not in made:
                raise schema.TemplateError(f"{graph.name!r}: {name} of {node.kind} comes from a {output.node.kind} that stands in no group.")
            links.append(link(len(links) + 1, made[output.node], output.name, made[node], name))
    groups = [{"id": i, "title": group.title, "bounding": box.saved(), "color": "#3f789e", "font_size": 24, "flags": {}}
              for i, (group, box) in enumerate(zip(graph.groups, placed.groups), 1)]
    return {"id": graph.id, "revision": 0, "last_node_id": len(made) + 1, "last_link_id": len(links), "nodes": [note_of(graph.note, placed.note), *made.values()],
            "links": links, "groups": groups, "config": {}, "extra": {"ds": {"scale": 0.7, "offset": [80, 60]}}, "version": 0.4}
