"""Which noise schedules the nodes that walk timesteps take: the nodes themselves, on the host's own Model Sampling nodes."""
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, ModelSamplingDiscrete, ModelSamplingSD3
from firstframe.networks.motion_module_files import motion_module
from firstframe.nodes.attention_map import MotionAttentionMap
from firstframe.nodes.inversion import MotionAwareInversion
from firstframe.nodes.motion_module import MotionModuleApply
from firstframe.nodes.pilife import I2VZero, PCFAPatch
from firstframe.prompts.tokens import MotionTokens
from firstframe.samplers.beta_schedule import with_betas
from firstframe.samplers.noise_schedule import check_schedule
from firstframe.tests import motion_files
from firstframe.tests import tiny_models as tiny

OTHERS = {
    "flow": lambda m: ModelSamplingSD3().patch(m, 3.0)[0],
    "EDM": lambda m: ModelSamplingContinuousEDM().patch(m, "v_prediction", 120.0, 0.002)[0],
    "EDM eps": lambda m: ModelSamplingContinuousEDM().patch(m, "eps", 120.0, 0.002)[0],
    "LCM": lambda m: ModelSamplingDiscrete().patch(m, "lcm", False)[0],
    "x0": lambda m: ModelSamplingDiscrete().patch(m, "x0", False)[0],
}
LATENT = {"samples": torch.zeros(1, 4, 8, 8)}
RUNS = {
    "Motion-Aware Inversion": lambda m: MotionAwareInversion.execute(m, LATENT, tiny.conditioning(1), "conditional", 8, 761),
    "I2V-Zero": lambda m: I2VZero.execute(m, LATENT, tiny.conditioning(1), tiny.conditioning(2), 3, "first", 0.5, 0, 12.0, 12.0, steps=8),
    "Motion Attention Map": lambda m: MotionAttentionMap.execute(m, LATENT, tiny.conditioning(1), MotionTokens((1,), 7, ("x",)), 761, 401, 2, 0, 0.0, 1.0, 0.0),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("who", RUNS)
def test_other_schedules_are_refused_with_the_node_to_move(who, kind):
    with pytest.raises(ValueError, match=f"{who} needs the noise schedule.*Move the Model Sampling node"):
        RUNS[who](OTHERS[kind](tiny.model()))


@pytest.mark.parametrize("who", RUNS)
def test_a_model_that_relates_frames_is_refused_with_the_node_to_move(who):
    m = tiny.model()
    motion = motion_module(motion_files.module(m), "f")
    for patched, first in ((PCFAPatch.execute(m, 0.5, 0, 0.0, 1.0), "Probabilistic Cross-Frame Attention"), (MotionModuleApply.execute(m, motion, 1.0, 0.0, 1.0), "Apply Motion Module")):
        with pytest.raises(ValueError, match=f"{who} runs the model on one picture.*since {first}.*Connect to the input 'model' of {who} what goes into {first}"):
            RUNS[who](patched.result[0])


def test_noise_and_velocity_are_taken_also_with_other_betas():
    for m in (tiny.model(), ModelSamplingDiscrete().patch(tiny.model(), "v_prediction", True)[0], with_betas(tiny.model(), "sqrt_linear", 0.00085, 0.012, "test")):
        check_schedule(m, "test")
