"""Whatever stands at an input, a graph runs, is refused by the host, or stops with a sentence of ours; afterwards a plain graph gives the same bits.

What is bad is drawn from the schemas: a new node, or a new input, is covered when `bases` has a graph for it.
"""
import firstframe
import pytest
import torch
from firstframe.tests.hostile import bases, cases
from firstframe.tests.hostile.verdict import judge, plain_bits, run

SCHEMAS = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in firstframe.NODES}


@pytest.mark.parametrize("node", SCHEMAS)
def test_every_bad_value_at_every_input(server, before, node):
    graph, key = bases.bases("small.png")[node]
    assert graph[key]["class_type"] == node
    unconnected = [i.id for i in SCHEMAS[node].inputs if i.get_io_type() not in cases.WIDGETS and not isinstance(graph[key]["inputs"].get(i.id), list)]
    assert not unconnected, f"bases leaves {unconnected} of {node} without a good value"
    run(server, graph)
    every = [(f"{node}.{spec.id}, {name}", bad) for spec in SCHEMAS[node].inputs for name, bad in cases.of_input(graph, key, spec)]
    wrong, counts = judge(server, every)
    assert counts["refused"] and counts["told"] and sum(counts.values()) >= len(every) - len(wrong)
    run(server, graph)
    assert torch.equal(plain_bits(server), before)
    assert not wrong, "\n" + "\n".join(wrong)
    assert "memory leak" not in server.log.read_text(errors="replace")  # the host's words for a model whose patchers it lost sight of
