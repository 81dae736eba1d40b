"""I2V-Adapter files: told by their keys, complete or refused by name."""
import json
from pathlib import Path

import comfy.memory_management
import pytest
import torch
from firstframe.networks.i2v_adapter import i2v_adapter, look
from firstframe.tests import i2v_adapter_files as files
from firstframe.tests import motion_files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q_ff.weight"
SCHEMA = Path(__file__).parents[1] / "golden" / "i2v_adapter_i2v_module_min.json"


@pytest.mark.parametrize("shape, layers", [("SD1.5", 16), ("SDXL", 28)])
@pytest.mark.parametrize("wrap", [dict, lambda sd: {f"module.{k}": v for k, v in sd.items()}, lambda sd: {f"unet.{k}": v.half() for k, v in sd.items()}])
def test_every_layer_is_filled(shape, layers, wrap):
    model = tiny.model(shape)
    sd = files.i2v_adapter(model)
    found = i2v_adapter(wrap(sd), "a")
    assert len(found.layout) == layers and found.family == shape
    loaded = found.patcher.model.state_dict()
    assert loaded.keys() == sd.keys() and all(torch.equal(loaded[k], wrap({k: v}).popitem()[1].float()) for k, v in sd.items())


def test_the_published_keys_and_shapes_are_all_taken():
    sd = {k: torch.zeros(shape).half() for k, shape in json.loads(SCHEMA.read_text()).items()}
    weights, layout = look(sd, "i2v_module.pth")
    assert weights.keys() == sd.keys() and len(layout) == 16 and sorted(set(layout.values())) == [320, 640, 1280]


def without(key):
    return lambda sd: {k: v for k, v in sd.items() if k != key}


@pytest.mark.parametrize("change, says", [
    (without(KEY), "lacks down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q_ff.weight"),
    (without(KEY.replace("to_q_ff", "to_out_ff")), "lacks .*to_out_ff.weight"), (lambda sd: {**sd, KEY: torch.zeros(8, 32)}, "shape \\[8, 32\\]"),
    (lambda sd: {**sd, KEY: torch.full((32, 32), float("nan"))}, "NaN"), (lambda sd: {**sd, KEY: torch.zeros(32)}, "shape \\[32\\]"),
    (lambda sd: {**sd, KEY: torch.zeros(64, 64)}, "to_out_ff.* instead of \\[64"), (lambda sd: {**sd, KEY.replace("down_blocks.0", "down_blocks.7"): sd[KEY]}, "the key 'down_blocks.7"),
    (lambda sd: {"image_proj.latents": torch.zeros(1, 16, 8)}, "an IP-Adapter. IP-Adapters belong into models/ipadapter"),
    (lambda sd: motion_files.module(tiny.model()), "a motion module. Motion modules belong"), (lambda sd: {"a": torch.zeros(2)}, "no kind that this pack knows"),
    (lambda sd: {}, "0 tensors")])
def test_other_files_are_refused_by_name(change, says):
    with pytest.raises(ValueError, match=f"Load I2V-Adapter expected an I2V-Adapter such as i2v_module.pth in 'a', found .*{says}"):
        i2v_adapter(change(files.i2v_adapter(tiny.model())), "a")


def test_further_weights_of_a_unet_are_left():
    sd = files.i2v_adapter(tiny.model())
    more = {**sd, "conv_in.weight": torch.zeros(32, 4, 3, 3), "time_embedding.linear_1.weight": torch.zeros(8, 8), KEY.replace("to_q_ff", "to_q"): torch.zeros(32, 32),
            **motion_files.module(tiny.model())}
    assert i2v_adapter(more, "a").patcher.model.state_dict().keys() == sd.keys()


def test_it_loads_where_layers_are_lazy():
    with dynamic_mode():
        assert comfy.memory_management.aimdo_enabled
        found = i2v_adapter(files.i2v_adapter(tiny.model()), "a")
        assert found.patcher.is_dynamic() and len(found.layout) == 16
