"""Ids, inputs and their order are public: a saved workflow holds widget values by position."""
import json
from pathlib import Path

import firstframe

STORED = Path(__file__).with_name("schemas.json")


def current() -> dict:
    out = {}
    for node in firstframe.NODES:
        schema = node.GET_SCHEMA()
        out[schema.node_id] = {"inputs": [f"{i.id}: {i.get_io_type()}" for i in schema.inputs],
                               "outputs": [f"{o.display_name}: {o.get_io_type()}" for o in schema.outputs]}
    return out


def test_ids_and_order_are_those_that_were_published():
    """New inputs go to the end, optional and neutral; then the stored list may grow (never shrink or change)."""
    assert current() == json.loads(STORED.read_text())
