"""Temporal layers in the host's UNet: against diffusers' UNetMotionModel with the same weights, and as patches that leave no trace."""
from dataclasses import replace

import comfy.cli_args
import comfy.context_windows
import comfy.model_management
import pytest
import torch
from firstframe.attention_patches import clean_frame
from firstframe.attention_patches.group_norm import norms
from firstframe.attention_patches.inserted_layers import insert
from firstframe.networks.motion_lora import apply_lora
from firstframe.networks.motion_module import places
from firstframe.networks.motion_module_files import motion_module
from firstframe.tests import motion_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.motion_reference import both, call

WHO = "Apply Motion Module"
PLACE = "down_blocks.0.motion_modules.1"


@pytest.mark.parametrize("shape,version", [("SD1.5", "v1"), ("SD1.5", "v2"), ("SD1.5", "v3"), ("SDXL", "SDXL")])
def test_the_whole_unet_is_that_of_diffusers(shape, version):
    """The same at the published channel sizes: benchmarks.motion_module exact."""
    model = tiny.model(shape)
    ours, theirs, alone = both(model, version, files.module(model, version))
    assert tiny.difference(ours, theirs) <= 1e-4
    assert tiny.difference(alone, theirs) > 0.05  # the layers do something


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def motion(model):
    return motion_module(files.module(model), "f")


def hooks(model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.model.modules())


def test_off_is_the_graph_without_the_node(model, motion):
    z = tiny.latents(4)
    plain = tiny.sample(model, z, steps=2)
    for options in (dict(strength=0.0), dict(start_percent=0.5, end_percent=0.5), dict(end_percent=0.0)):
        assert torch.equal(tiny.sample(insert(model, motion, WHO, **options), z, steps=2), plain)
    assert torch.equal(tiny.sample(insert(model, motion, WHO, mask=torch.zeros(1, 128, 128)), z, steps=2), plain)


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_the_model_is_left_as_it_was(model, version):
    z, found = tiny.latents(4), motion_module(files.module(model, version), "f")
    before, keys = tiny.sample(model, z), set(model.model.state_dict())
    m = insert(model, found, WHO, over_all_frames=found.over_frames)
    moved = tiny.sample(m, z)
    assert tiny.difference(moved, before) > 0.01 and torch.equal(tiny.sample(m, z), moved)
    assert torch.equal(tiny.sample(model, z), before) and set(model.model.state_dict()) == keys and hooks(model) == 0


def test_an_error_in_the_middle_leaves_no_hooks(model, motion):
    m = insert(model, motion, WHO, over_all_frames=True)

    def fail(q, k, v, eo):
        if eo["block"][0] == "middle":
            raise RuntimeError("in the middle")
        return q, k, v

    m.set_model_attn1_patch(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        tiny.sample(m, tiny.latents(3))
    assert hooks(model) == 0


def test_the_range_is_that_of_the_schedule(model, motion):
    z, sampling = tiny.latents(3), model.get_model_object("model_sampling")
    sigmas = [float(sampling.percent_to_sigma(p)) for p in (0.3, 0.6)]
    early, late = insert(model, motion, WHO, end_percent=0.5), insert(model, motion, WHO, start_percent=0.5)
    whole = insert(model, motion, WHO)
    for sigma, on, off in ((sigmas[0], early, late), (sigmas[1], late, early)):
        assert torch.equal(tiny.sample(on, z, sigma=sigma), tiny.sample(whole, z, sigma=sigma))
        assert torch.equal(tiny.sample(off, z, sigma=sigma), tiny.sample(model, z, sigma=sigma))


def test_conditionings_and_clips_do_not_mix(model, motion):
    """cond and uncond together or one after the other; one clip alone or two in a batch."""
    m, z = insert(model, motion, WHO), tiny.latents(4)
    together = tiny.sample(m, z, cfg=3.0)
    apart = 3 * tiny.sample(m, z, cfg=1.0) - 2 * tiny.sample(m, z, cfg=1.0, positive=tiny.conditioning(2))
    assert tiny.difference(together, apart) <= 1e-4
    two = insert(model, motion, WHO, frames=2)
    x, t, context = tiny.latents(4), torch.full((4,), 500.0), tiny.conditioning(1)[0][0].expand(4, -1, -1)
    with torch.no_grad():
        both = call(two, x, t, context)
        for clip in (slice(0, 2), slice(2, 4)):
            assert tiny.difference(call(two, x[clip], t[clip], context[clip]), both[clip]) <= 1e-5


def test_strength_and_mask_scale_what_the_layers_add(model, motion):
    """In one layer's output, against the sum written out; masks per frame follow the frame's number in the whole clip."""
    one = replace(motion, layout={PLACE: motion.layout[PLACE]})
    mask = torch.rand(6, 16, 16, generator=torch.Generator().manual_seed(4))
    x, t, context = tiny.latents(3), torch.full((3,), 500.0), tiny.conditioning(1)[0][0].expand(3, -1, -1)

    def seen(m, **options):
        out = []
        watch = model.model.diffusion_model.input_blocks[3][0].register_forward_pre_hook(lambda module, args: out.append(args[0]))  # the downsampler
        with torch.no_grad():
            call(m, x, t, context, **options)
        watch.remove()
        return out[0]

    with torch.no_grad():
        raw = seen(model)
        full = motion.patcher.model.get_submodule(PLACE)(raw, range(3), {})
    window = comfy.context_windows.IndexListContextWindow([2, 4, 5], dim=0, total_frames=6)
    for options, scale, extra in ((dict(), 1.0, {}), (dict(strength=0.25), 0.25, {}), (dict(strength=0.5, mask=mask), 0.5 * mask[[0, 1, 2], None], {}),
                                  (dict(mask=mask), mask[[2, 4, 5], None], {"context_window": window}), (dict(mask=mask[3:4]), mask[3:4, None], {})):
        torch.testing.assert_close(seen(insert(model, one, WHO, **options), **extra), raw + scale * full, rtol=1e-5, atol=1e-5)


def test_modules_stack_and_a_lora_changes_the_result(model, motion):
    z = tiny.latents(3)
    other = motion_module(files.module(model, "v2", seed=9), "g")
    once, twice = insert(model, motion, WHO), insert(insert(model, motion, WHO), other, WHO)
    a, b = tiny.sample(once, z), tiny.sample(twice, z)
    assert tiny.difference(a, b) > 0.01
    with_lora = insert(model, apply_lora(motion, files.lora(model), "l", 1.0), WHO)
    assert tiny.difference(tiny.sample(with_lora, z), a) > 0.01
    assert torch.equal(tiny.sample(once, z), a)  # the same module without the LoRA, after it


def test_one_module_stacks_with_and_without_a_lora(model, motion):
    """As two files with the same weights do, in either order, also when one has been loaded before."""
    z, lora, again = tiny.latents(3), files.lora(model), motion_module(files.module(model), "g")
    tiny.sample(insert(model, apply_lora(motion, lora, "l", 1.0), WHO), z)
    for first, second, file in ((motion, apply_lora(motion, lora, "l", 1.0), apply_lora(again, lora, "l", 1.0)), (apply_lora(motion, lora, "l", 1.0), motion, again)):
        expected = tiny.sample(insert(insert(model, first, WHO), file, WHO), z)
        assert torch.equal(tiny.sample(insert(insert(model, first, WHO), second, WHO), z), expected)


def windowed(m, length: int, causal: bool = False):
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode
    return ContextWindowsManualNode.execute(m, context_length=length, context_overlap=2, context_schedule="standard_static", context_stride=1, closed_loop=False,
                                            fuse_method="pyramid", dim=0, freenoise=False, causal_window_fix=causal).result[0]


def test_windows_of_the_host_drive_it(model, motion):
    """Positions count from the window's own first frame: a window's call is that of a short clip of its frames."""
    m, z = insert(model, motion, WHO), tiny.latents(12)
    out = tiny.sample(windowed(m, 4), z)
    assert out.shape == z.shape and torch.isfinite(out).all() and tiny.difference(out, tiny.sample(m, z)) > 1e-3
    x, t, context = tiny.latents(4), torch.full((4,), 500.0), tiny.conditioning(1)[0][0].expand(4, -1, -1)
    window = comfy.context_windows.IndexListContextWindow([4, 5, 6, 7], dim=0, total_frames=12)
    with torch.no_grad():
        assert torch.equal(call(m, x, t, context, context_window=window), call(m, x, t, context))


def test_causal_windows_are_named_in_the_log_once_per_run(model, motion, caplog):
    def said(m, frames):
        caplog.clear()
        tiny.sample(m, tiny.latents(frames, 8), steps=2)
        return [r.message for r in caplog.records if "causal_window_fix" in r.message]

    on, off = (windowed(insert(model, motion, WHO), 4, causal=causal) for causal in (True, False))
    line, = said(on, 6)
    assert line.startswith(f"{WHO}: causal_window_fix is on") and "5 frames instead of 4" in line and line.endswith("switch it off for motion modules.")
    assert said(off, 6) == [] and said(on, 4) == []  # a clip in one window brings nothing along


def test_clips_that_it_cannot_do_are_refused_before_the_first_step(model, motion):
    m = insert(model, motion, WHO)
    with pytest.raises(ValueError, match="at least 2"):
        tiny.sample(m, tiny.latents(1))
    with pytest.raises(ValueError, match="knows 32 frames, one call would hold 33.*Context Windows"):
        tiny.sample(m, tiny.latents(33, 8))
    with pytest.raises(ValueError, match="one call would hold 33. Lower context_length in"):
        tiny.sample(windowed(m, 33), tiny.latents(34, 8))
    with pytest.raises(ValueError, match="one call would hold 33. Lower context_length or switch causal_window_fix off"):
        tiny.sample(windowed(m, 32, causal=True), tiny.latents(34, 8))
    with pytest.raises(ValueError, match="one call would hold 33. Lower context_length in"):
        tiny.sample(windowed(clean_frame.keep(m, tiny.latents(1, 8), "test"), 32), tiny.latents(34, 8))  # the clean first frame comes along
    assert torch.isfinite(tiny.sample(windowed(m, 16), tiny.latents(34, 8))).all()  # more frames than it knows, in windows that it knows
    with pytest.raises(ValueError, match="got 3 masks for 4 frames"):
        tiny.sample(insert(model, motion, WHO, mask=torch.ones(3, 128, 128)), tiny.latents(4))
    with pytest.raises(ValueError, match="whole clips of 3"):
        tiny.sample(insert(model, motion, WHO, frames=3), tiny.latents(4))


@pytest.mark.parametrize("shape,overrides", [("SDXL", {}), ("SD1.5", {"model_channels": 64})])
def test_a_module_of_another_base_names_both(motion, shape, overrides):
    other = tiny.model(shape, **overrides)
    with pytest.raises(ValueError, match=f"'f' does not fit this {type(other.model.model_config).__name__} model.*32-32-32-32.*wide"):
        insert(other, motion, WHO)


def test_places_are_those_of_the_published_files(model):
    assert len(places(model.model.diffusion_model)) == 21 and len(places(tiny.model("SDXL").model.diffusion_model)) == 16
    assert len(norms(model.model.diffusion_model)) == 2 * (8 + 2 + 12) + 1
