"""A template as it is written down: nodes in groups, groups in columns, what is linked to what by name, and the note.

    checkpoint = Node("CheckpointLoaderSimple", {"ckpt_name": "some.safetensors"})
    prompt = Node("CLIPTextEncode", {"text": "a cat", "clip": checkpoint["CLIP"]}, title="Prompt")
    Graph("Name", note, [[Group("Load", [checkpoint])], [Group("Prompt", [prompt])]])

An input that is another node's output is a link, everything else a widget's value; widgets that are not named keep the
default of the node's schema.
"""
import uuid
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Output:
    """One output of a node, by its name."""
    node: "Node"
    name: str


@dataclass(eq=False)
class Node:
    kind: str
    inputs: dict = field(default_factory=dict)
    title: str = ""
    bypassed: bool = False
    lines: int = 3  # of its text box, where it has one

    def __getitem__(self, output: str) -> Output:
        return Output(self, output)

    @property
    def links(self) -> dict:
        return {name: value for name, value in self.inputs.items() if isinstance(value, Output)}

    @property
    def values(self) -> dict:
        return {name: value for name, value in self.inputs.items() if not isinstance(value, Output)}


@dataclass
class Group:
    """Nodes of one column, from top to bottom, in a box with a title."""
    title: str
    nodes: list


@dataclass
class Graph:
    """columns: lists of groups, from left to right; the note stands on top of the first."""
    name: str
    note: str
    columns: list

    @property
    def id(self) -> str:
        """The page wants one that no other graph has; the name's own never changes."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.name))

    @property
    def groups(self) -> list:
        return [group for column in self.columns for group in column]

    @property
    def nodes(self) -> list:
        return [node for group in self.groups for node in group.nodes]
