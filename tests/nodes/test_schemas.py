"""Ids, inputs, their order, defaults, ranges and choices are public: a saved workflow holds widget values by position."""
import hashlib
import json

import firstframe
from firstframe.demo.cli.server import PACK

STORED = PACK / "tests" / "nodes" / "schemas.json"
LIMITS = ("default", "min", "max", "step", "options", "control_after_generate", "multiline")
FILES = {"motion_module", "lora", "tagger", "content_adapter", "image_projection", "reward_model", "sparse_ctrl", "dynamicrafter"}  # inputs whose choices are the user's files


def described(widget) -> dict:
    limits = {name: value for name in LIMITS if (value := getattr(widget, name, None)) is not None}
    if widget.id in FILES:
        limits.pop("options", None)
    return {"id": widget.id, "type": widget.get_io_type(), **({"optional": True} if widget.optional else {}), **limits}


def current() -> dict:
    return {schema.node_id: {"inputs": [described(i) for i in schema.inputs], "outputs": [f"{o.display_name}: {o.get_io_type()}" for o in schema.outputs]}
            for schema in (node.GET_SCHEMA() for node in firstframe.NODES)}


def text(schemas: dict) -> str:
    """One line for each input, so that a change is seen as one."""
    nodes = []
    for node, schema in schemas.items():
        parts = [f'  "{part}": [\n' + ",\n".join(f"   {json.dumps(line)}" for line in schema[part]) + "\n  ]" for part in ("inputs", "outputs")]
        nodes.append(f' "{node}": {{\n' + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(nodes) + "\n}\n"


def test_inputs_are_those_that_were_published():
    """New inputs go to the end, optional and neutral. After a change that is meant:  tests.nodes.test_schemas.text(current()) is the new file."""
    assert current() == json.loads(STORED.read_text(encoding="utf-8"))


def test_a_change_of_the_inputs_is_in_the_changelog():
    """CHANGELOG.md has a line `Inputs <digest of schemas.json>: what changed`, the latest first."""
    digest = hashlib.sha256(STORED.read_bytes()).hexdigest()[:12]
    lines = [line for line in (PACK / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("Inputs ")]
    assert lines and lines[0].startswith(f"Inputs {digest}: "), f"Say in CHANGELOG.md what changed for saved workflows, in a line that begins with 'Inputs {digest}: '."


def test_every_node_can_be_searched_for_by_other_words_than_its_name():
    for node in firstframe.NODES:
        schema = node.GET_SCHEMA()
        assert len(schema.search_aliases) >= 4 and len({a.lower() for a in schema.search_aliases}) == len(schema.search_aliases), schema.node_id
