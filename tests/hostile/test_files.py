"""Whatever lies in a folder of ours, a graph that reads it runs or stops with a sentence of ours; afterwards a plain graph gives the same bits."""
import pytest
import torch
from firstframe.tests import graphs
from firstframe.tests.hostile import bases, files
from firstframe.tests.hostile.verdict import judge, plain_bits, run
from safetensors.torch import load_file

GOOD = {"FF_MotionModuleLoader": {"double.safetensors", "no_positions.safetensors"}, "FF_MotionLoraLoader": {"double.safetensors"}, "FF_I2VAdapterLoader": {"double.safetensors"},
        "FF_ContentAdapterLoader": {"double.safetensors", "published.bin"}, "FF_RewardModelLoader": {"double.safetensors"},
        "FF_SparseCtrlLoader": {"double.safetensors", "wrapped.ckpt"}, "FF_DynamiCrafterLoader": {"double.safetensors", "official.ckpt", "deepspeed.ckpt"}}


def written(server, folder: str, bad: dict, good) -> list[str]:
    place = server.base / "models" / folder
    place.mkdir(exist_ok=True)
    for name, write in bad.items():
        write(place / name, good)
    return list(bad)


@pytest.mark.parametrize("node, widget, folder, good, bad", [
    ("FF_MotionModuleLoader", "motion_module", "animatediff_models", graphs.MOTION, files.MODULES),
    ("FF_MotionLoraLoader", "lora", "animatediff_motion_lora", graphs.PAN, files.LORAS),
    ("FF_I2VAdapterLoader", "i2v_adapter", "i2v_adapter", "random.safetensors", files.I2V_ADAPTERS),
    ("FF_ContentAdapterLoader", "content_adapter", "ipadapter", graphs.ADAPTER, files.IP_ADAPTERS),
    ("FF_RewardModelLoader", "reward_model", "reward_models", graphs.REWARD, files.REWARDS),
    ("FF_SparseCtrlLoader", "sparse_ctrl", "controlnet", graphs.SPARSE, files.SPARSE_CTRLS),
    ("FF_DynamiCrafterLoader", "dynamicrafter", "checkpoints", graphs.DYNAMI, files.DYNAMICRAFTERS)])
def test_every_bad_file(server, before, node, widget, folder, good, bad):
    names = written(server, folder, bad, load_file(server.base / "models" / folder / good))
    graph, key = bases.bases("small.png")[node]
    cases = {name: {**graph, key: {**graph[key], "inputs": {**graph[key]["inputs"], widget: name}}} for name in names}
    wrong, counts = judge(server, [(f"{node}, {name}", case) for name, case in cases.items() if name not in GOOD[node]])
    assert not wrong, "\n" + "\n".join(wrong)
    for name in GOOD[node]:
        run(server, cases[name])
    run(server, graph)
    assert torch.equal(plain_bits(server), before) and counts["told"] > 30


def test_every_bad_tagger(server, before):
    for folder, content in files.TAGGERS.items():
        (server.base / "models" / "motion_taggers" / folder).mkdir(parents=True)
        for name, data in content.items():
            (server.base / "models" / "motion_taggers" / folder / name).write_bytes(data)
    graph, key = bases.bases("small.png")["FF_MotionTokens"]
    cases = [(f"FF_MotionTokens, {name}", {**graph, key: {**graph[key], "inputs": {**graph[key]["inputs"], "words": "", "tagger": name}}}) for name in files.TAGGERS]
    wrong, counts = judge(server, cases)
    assert not wrong and counts == {"refused": 0, "ran": 0, "told": len(files.TAGGERS)}, "\n" + "\n".join(wrong)
    assert torch.equal(plain_bits(server), before)
