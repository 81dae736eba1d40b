"""Where the nodes of a graph stand: columns from left to right, groups as boxes, room for what a run makes appear. Pure.

Heights are those of ComfyUI's page (LiteGraph): rows of sockets, then widgets. A node that shows a picture, a clip or a
text after a run is as tall from the start as it will be then, so that nothing moves and nothing is covered.
"""
import math
from dataclasses import dataclass

from . import schema
from .graph import Graph, Node

WIDEST = 1900           # the page fits a template into 3/4 of its window: at 1600 px this is a zoom of 0.63, the last at which text is easy to read
TITLE = 30
ROW, WIDGET, LINE = 20, 24, 14
GAP = 12                # between a node and the next one's title
PADDING, HEADER = 10, 40    # of a group's box
BETWEEN = 40            # columns: two paddings, and room for links to be seen
COLUMN, NOTE = 260, 300     # least widths
# What the page adds after a run. Under Save Video there is nothing that could be covered: it has room, but is not drawn tall.
PREVIEW = {"LoadImage": 224, "LoadVideo": 264, "SaveAnimatedWEBP": 190, "MaskPreview": 232, "MotionAwareInversion": 300, "NoiseClipper": 66, "FF_MotionTokens": 66,
           "FF_AnchorImageSearch": 200}
BELOW = {"SaveVideo": 300}


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def saved(self) -> list:
        return [self.x, self.y, self.width, self.height]


@dataclass
class Layout:
    """nodes: from node to its box without the title bar; groups: a box for each of graph.groups; note: its box."""
    nodes: dict
    groups: list
    note: Box

    @property
    def width(self) -> float:
        boxes = [*self.groups, self.note]
        return max(b.right for b in boxes) - min(b.x for b in boxes)


def height(node: Node, spec: dict) -> int:
    rows = max(len(schema.sockets(spec)), len(spec["output"]))
    widgets = schema.widgets(spec, node.values)
    boxes = sum(schema.is_text_box(kind, options) for _, kind, _, options, _ in widgets)
    plain = len(widgets) - boxes + sum(schema.is_seed(n, k, o) or schema.is_upload(o) for n, k, _, o, _ in widgets)
    inside = plain * WIDGET + boxes * max(54, 12 + LINE * node.lines)
    return rows * ROW + 6 + (inside + 8 if widgets else 0) + PREVIEW.get(node.kind, 0)


def least_width(node: Node, spec: dict) -> int:
    """The page cuts a title that does not fit."""
    return math.ceil(50 + 7.2 * len(node.title or spec["display_name"] or node.kind))


def note_height(text: str, width: float) -> int:
    """Enough for the page's Markdown box, within some 50 px: measured there on the notes that exist, in three widths each."""
    total = 50
    for line in text.splitlines():
        words = line.lstrip("#-0123456789. ").replace("*", "").replace("`", "")
        letters = (width - 20 - 40 * (line.startswith("- ") or line[:1].isdigit())) / (8 if line.startswith("## ") else 5.4)
        total += math.ceil(len(words) / letters) * (20 if line.startswith("## ") else 16 if line.startswith("#") else 12) if line else 10
    return total


def place(graph: Graph, info: dict) -> Layout:
    nodes, groups, x = {}, [], PADDING
    for column in graph.columns:
        members = [node for group in column for node in group.nodes]
        width = max([COLUMN if nodes else NOTE, *(least_width(node, info[node.kind]) for node in members)])
        y = 0  # the upper edge of what comes next, title bars included
        if not nodes:
            note = Box(x - PADDING, TITLE, width + 2 * PADDING, note_height(graph.note, width + 2 * PADDING))
            y = note.bottom + GAP
        for group in column:
            top, y = y, y + HEADER
            for node in group.nodes:
                nodes[node] = Box(x, y + TITLE, width, height(node, info[node.kind]))
                y = nodes[node].bottom + GAP
            y += PADDING - GAP + BELOW.get(group.nodes[-1].kind, 0)
            groups.append(Box(x - PADDING, top, width + 2 * PADDING, y - top))
            y += GAP
        x += width + BETWEEN
    return Layout(nodes, groups, note)
