"""Riders in the host's other ways to run a model: with motion layers on several devices each runs its own; in dynamic mode the bits are the same."""
from pathlib import Path

import comfy.model_management
import comfy.sd
import comfy.utils
import firstframe
import pytest
import torch
from firstframe.attention_patches import cross_frame
from firstframe.attention_patches.inserted_layers import insert
from firstframe.networks.motion_module_files import motion_module
from firstframe.nodes.pilife import chooser
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode

WEIGHTS = Path(firstframe.__file__).parent / "demo" / "weights"
MODULE, = (WEIGHTS / "animatediff_models").iterdir()
Z = tiny.latents(4)


def load_motion(disable_dynamic=False):
    motion = motion_module(comfy.utils.load_torch_file(str(MODULE), safe_load=True), MODULE.name)
    if motion.patcher.cached_patcher_init is None:
        motion.patcher.cached_patcher_init = (lambda disable_dynamic=False: load_motion().patcher, ())
    return motion


def load_model():
    return comfy.sd.load_checkpoint_guess_config(str(WEIGHTS / "checkpoints" / "firstframe_demo.safetensors"), output_vae=False, output_clip=False)[0]


@pytest.fixture(scope="module")
def model():
    return load_model()


def riding(m):
    return cross_frame.patch(insert(m, load_motion(), "A", start_percent=0.1), chooser("PCFA", 0.4, 3), "B")


def silence(m) -> None:
    """The motion module of this MODEL adds nothing from now on."""
    (patcher,), = (models for key, models in m.additional_models.items() if key.startswith("firstframe"))
    comfy.model_management.unload_model_and_clones(patcher)
    with torch.no_grad():
        for name, p in patcher.model.named_parameters():
            if ".proj_out." in name:
                p.zero_()


def test_a_deep_clone_runs_its_own_layers(model):
    m = riding(model)
    clone = m.deepclone_multigpu(torch.device("cpu"))
    expected = tiny.sample(m, Z)
    assert torch.equal(tiny.sample(clone, Z), expected)
    silence(clone)
    without = tiny.sample(cross_frame.patch(model, chooser("PCFA", 0.4, 3), "B"), Z)
    assert torch.equal(tiny.sample(clone, Z), without) and tiny.difference(without, expected) > 0.01
    assert torch.equal(tiny.sample(m, Z), expected)


@pytest.mark.parametrize("after", [False, True], ids=["before the multi-GPU node", "after it"])
def test_two_devices_at_once(model, after):
    """In the host's worker threads, the conditionings on one device each; cpu and cpu:0 count as two."""
    def spread(m):
        m = m.clone()
        other = m.deepclone_multigpu(torch.device("cpu:0"))
        other.is_multigpu_base_clone = True
        m.set_additional_models("multigpu", [other])
        return m

    expected, plain = tiny.sample(riding(model), Z), tiny.sample(cross_frame.patch(model, chooser("PCFA", 0.4, 3), "B"), Z)
    m = riding(spread(model)) if after else spread(riding(model))
    assert tiny.difference(tiny.sample(m, Z), expected) < 1e-5
    silence(m.get_additional_models_with_key("multigpu")[0])
    half = tiny.sample(m, Z)
    assert tiny.difference(half, expected) > 0.01 and tiny.difference(half, plain) > 0.01


def test_a_range_in_dynamic_mode_gives_the_same_bits():
    def results():
        m = cross_frame.patch(load_model(), chooser("PCFA", 0.4, 3), "B", start_percent=0.3, end_percent=0.7)
        return [tiny.sample(m, Z, sigma=sigma) for sigma in (10.0, 2.0, 0.2)]

    ordinary = results()
    with dynamic_mode():
        assert all(torch.equal(a, b) for a, b in zip(results(), ordinary))
