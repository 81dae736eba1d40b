"""What a link brings is held against the schema, in every node of the pack."""
import firstframe
import pytest
import torch
from comfy_api.latest import io
from firstframe.nodes.inputs import WIRES, Node

ENTRY = [torch.zeros(1, 77, 64), {}]


class Example(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Example", display_name="Example (of a paper)", inputs=[
            io.Int.Input("count", min=2, max=9), io.Float.Input("share", min=0.0, max=1.0), io.Boolean.Input("on"), io.String.Input("text"),
            io.Combo.Input("kind", options=["a", "b"]), io.Conditioning.Input("prompt"), io.Latent.Input("samples"), io.Mask.Input("mask", optional=True),
            io.Int.Input("open", optional=True)])

    @classmethod
    def execute(cls, count, share, on, text, kind, prompt, samples, mask=None, open=0):
        return count, share


GOOD = dict(count=2, share=1, on=False, text="", kind="b", prompt=[ENTRY], samples={"samples": torch.zeros(1, 4, 2, 2)})


@pytest.mark.parametrize("inputs", [{}, {"count": 9, "share": 0.0}, {"on": 1}, {"text": "圆 👩‍👧"}, {"prompt": [tuple(ENTRY)] * 2}, {"mask": None}, {"mask": torch.zeros(2, 2)},
                                    {"open": -(10**9)}])
def test_what_the_schema_takes_arrives(inputs):
    want = {**GOOD, **inputs}
    assert Example.execute(**want) == (want["count"], want["share"])
    assert Example.execute(*list(want.values())[:7]) == (want["count"], want["share"])


@pytest.mark.parametrize("inputs, said", [
    ({"count": 1}, "Example needs a whole number from 2 to 9 in 'count', got 1. Change it there, or in the node that is connected to it."),
    ({"count": 1500000}, "from 2 to 9 in 'count', got 1500000."), ({"count": True}, "'count', got True."), ({"count": [1, 2]}, "'count', got a list of 2."),
    ({"count": "3"}, "'count', got '3'."), ({"count": 3.0}, "'count', got 3.0."), ({"count": None}, "'count', got nothing."), ({"count": 10**400}, "'count', got 1000"),
    ({"open": 0.5}, "Example needs a whole number in 'open', got 0.5."),
    ({"share": float("nan")}, "Example needs a number from 0.0 to 1.0 in 'share', got nan."), ({"share": float("inf")}, "got inf"), ({"share": torch.ones(2)}, "got a tensor [2]."),
    ({"on": torch.ones(2)}, "Example needs on or off in 'on', got a tensor [2]."), ({"text": 5}, "Example needs a text in 'text', got 5."),
    ({"text": "a \ud83d"}, "Example got half a character in 'text'"), ({"kind": "c"}, "Example knows no choice in 'kind' of the name 'c'. Choose one of: a, b."),
    ({"prompt": []}, "Example got an empty conditioning in 'prompt'."),
    ({"prompt": [[torch.zeros(77, 64), {}]]}, "Example needs embeddings [batch, tokens, width], as of CLIP Text Encode in 'prompt'"),
    ({"prompt": [[ENTRY[0] / 0, {}]]}, "Example got a conditioning with NaN or infinite values in 'prompt'."), ({"prompt": None}, "in 'prompt', got nothing."),
    ({"samples": {}}, "Example needs latents of one tensor in 'samples', got a dict of 0."), ({"samples": None}, "got nothing"),
    ({"mask": "text"}, "Example needs a mask in 'mask', got 'text'."),
])
def test_what_it_does_not_take_is_named(inputs, said):
    with pytest.raises(ValueError) as caught:
        Example.execute(**{**GOOD, **inputs})
    assert said in str(caught.value)


def test_the_hosts_own_subclass_looks_once():
    clone = Example.PREPARE_CLASS_CLONE(None)
    assert clone.execute.__func__ is Example.execute.__func__
    with pytest.raises(ValueError, match="'count', got 1"):
        clone.execute(**{**GOOD, "count": 1})


def test_every_node_has_it_and_knows_its_wires():
    for node in firstframe.NODES:
        assert issubclass(node, Node), f"{node.__name__} should derive from nodes.inputs.Node"
        assert {i.get_io_type() for i in node.GET_SCHEMA().inputs} <= {"INT", "FLOAT", "BOOLEAN", "STRING", "COMBO", *WIRES}
