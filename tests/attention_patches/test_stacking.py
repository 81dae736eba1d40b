"""Cross-frame attention, motion layers, dual cross-attention and the first frame beside what users put next to it: the host's own nodes, run through their own classes."""
import comfy_extras.nodes_sag
import pytest
import torch
from comfy_extras.nodes_freelunch import FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance
from firstframe.attention_patches import cross_frame, first_frame
from firstframe.attention_patches.dual_cross import patch
from firstframe.attention_patches.inserted_layers import insert
from firstframe.networks.content_adapter import content_adapter
from firstframe.networks.i2v_adapter import i2v_adapter
from firstframe.networks.motion_module_files import motion_module
from firstframe.nodes.pilife import chooser
from firstframe.tests import adapter_files, i2v_adapter_files, motion_files
from firstframe.tests import tiny_models as tiny

import nodes


@pytest.fixture(scope="module")
def m():
    return tiny.model()


Z, PICTURE = tiny.latents(4), tiny.latents(1, seed=21)


def cross_frame_patched(m):
    return cross_frame.patch(m, chooser("PCFA", 0.4, 3), "test")


def motion_patched(m):
    return insert(m, motion_module(motion_files.module(m, "v3" if len(m.model.model_config.unet_config["channel_mult"]) == 4 else "SDXL"), "f"), "test")


def picture_patched(m):
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(len(Z), 4, tiny.CONTEXT, generator=generator), torch.randn(1, 4, tiny.CONTEXT, generator=generator)
    return patch(m, content_adapter(adapter_files.adapter(m), "f"), tokens, "test", mask=torch.rand(1, 128, 128, generator=generator))


def first_frame_patched(m):
    return first_frame.patch(m, i2v_adapter(i2v_adapter_files.i2v_adapter(m), "f"), PICTURE, "test", needs_motion=False)


@pytest.fixture(params=[cross_frame_patched, motion_patched, picture_patched, first_frame_patched], ids=["PCFA", "motion", "picture", "first frame"])
def patched(request):
    return request.param


def run(m, **kw):
    return tiny.sample(m, Z, **kw)


def result(output):
    return output.result[0] if hasattr(output, "result") else output[0]


def both_matter(m, other, patched):
    """The two patches in either order: the outputs; each differs from the one without either patch."""
    one, two = run(patched(other(m))), run(other(patched(m)))
    for alone in (run(m), run(patched(m)), run(other(m))):
        assert tiny.difference(one, alone) > 1e-4 and tiny.difference(two, alone) > 1e-4
    if patched is first_frame_patched:
        assert torch.equal(one[0], PICTURE[0]) and torch.equal(two[0], PICTURE[0])
    return one, two


def test_lora(m, patched):
    key = "diffusion_model.output_blocks.5.1.transformer_blocks.0.attn1.to_k.weight"
    weight = dict(m.model.named_parameters())[key]
    generator = torch.Generator().manual_seed(0)
    lora = {key: ("diff", (torch.randn(weight.shape, generator=generator),))}

    def other(m):
        m = m.clone()
        assert m.add_patches(lora, 0.5)
        return m

    one, two = both_matter(m, other, patched)
    assert torch.equal(one, two)


def test_freeu(patched):
    m = tiny.model("SDXL")  # FreeU acts on blocks of 2 and 4 times the base width, which the other tiny model lacks
    one, two = both_matter(m, lambda m: result(FreeU_V2.execute(m, 1.3, 1.4, 0.9, 0.2)), patched)
    assert torch.equal(one, two)


def test_perturbed_attention_guidance(m, patched):
    """PAG's own pass puts identity attention in the middle block; that must win there, and only there."""
    one, two = both_matter(m, lambda m: result(PerturbedAttentionGuidance.execute(m, 3.0)), patched)
    assert torch.equal(one, two)


def sag(m):
    return result(SelfAttentionGuidance.execute(m, 2.0, 2.0))


def test_self_attention_guidance(m, patched):
    one, two = both_matter(m, sag, patched)
    assert torch.isfinite(one).all() and torch.isfinite(two).all()
    if patched is not cross_frame_patched:
        assert torch.equal(one, two)


def test_self_attention_guidance_outside_the_middle_block(m):
    def elsewhere(m):
        return cross_frame.patch(m, chooser("PCFA", 0.4, 3), "test", stages=("input", "output"))

    assert torch.equal(run(elsewhere(sag(m))), run(sag(elsewhere(m))))


def test_self_attention_guidance_before_ours_reads_the_layers_own_attention(m, monkeypatch):
    """Its map is that of the plain q, k, v of the negative prompt's frames; what leaves the layer is cross-frame attention all the same."""
    layer, heard, maps, blur = m.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1, {}, [], comfy_extras.nodes_sag.create_blur_map

    def first(name, value):
        heard.setdefault(name, value)

    watch = [part.register_forward_hook(lambda mod, a, out, name=name: first(name, out)) for name, part in (("q", layer.to_q), ("k", layer.to_k))]
    watch.append(layer.to_out.register_forward_pre_hook(lambda mod, args: first("out", args[0])))
    monkeypatch.setattr(comfy_extras.nodes_sag, "create_blur_map", lambda x, attn, *a: maps.append(attn) or blur(x, attn, *a))
    run(cross_frame_patched(sag(m)))
    out = heard.pop("out")
    q, k = (heard[n].chunk(2)[0].unflatten(-1, (layer.heads, -1)).transpose(1, 2) for n in "qk")
    torch.testing.assert_close(maps[0].unflatten(0, (4, -1)), torch.softmax(q @ k.transpose(2, 3) * layer.dim_head**-0.5, -1))
    heard.clear()
    run(cross_frame_patched(m))
    for handle in watch:
        handle.remove()
    assert torch.equal(out, heard["out"])


def test_hypertile(m, patched):
    def other(m):
        return result(HyperTile.execute(m, 64, 1, 0, False))  # tiles of 8x8 latents; swap 1 keeps one split

    one, two = both_matter(m, other, patched)
    assert tiny.difference(one, two) < 1e-5


def test_attention_override_sees_our_calls(m):
    seen = []

    def other(m):
        m = m.clone()

        def override(func, q, k, v, heads, *a, **kw):
            seen.append((q.shape, k.shape))
            return func(q, k, v, heads, *a, **kw)

        m.model_options["transformer_options"]["optimized_attention_override"] = override
        return m

    assert torch.equal(run(other(cross_frame_patched(m))), run(cross_frame_patched(m)))
    assert any(k[1] == 3 * q[1] and q[1] > 16 for q, k in seen)


@pytest.mark.parametrize("index", [None, 0])
def test_another_replacement_of_attn1_in_either_order(m, index):
    """Another pack's attn1 owner that scales its result: before ours it is called by us, group by group."""
    def other(m):
        m = m.clone()
        m.set_model_attn1_replace(lambda q, k, v, eo: 0.5 * cross_frame.host_attention(q, k, v, eo), "output", 5, index)
        return m

    ours_last = run(cross_frame_patched(other(m)))
    scaled = cross_frame_patched(m)
    slots = scaled.model_options["transformer_options"]["patches_replace"]["attn1"]
    inner = slots[("output", 5)]
    scaled = scaled.clone()
    scaled.set_model_attn1_replace(lambda q, k, v, eo: 0.5 * inner(q, k, v, eo), "output", 5)
    assert tiny.difference(ours_last, run(scaled)) < 1e-6
    assert tiny.difference(run(other(cross_frame_patched(m))), run(cross_frame_patched(m))) > 1e-4  # after ours it owns that block


def test_attn1_patches_before_the_projections(m, patched):
    def other(m):
        m = m.clone()
        m.set_model_attn1_patch(lambda q, k, v, eo: (q, k * 1.1, v * 0.9))
        return m

    one, two = both_matter(m, other, patched)
    assert torch.equal(one, two)


def test_controlnet(m, patched):
    control, hint = tiny.control_net()
    apply = nodes.ControlNetApplyAdvanced().apply_controlnet
    positive, negative = apply(tiny.conditioning(1), tiny.conditioning(2), control, hint, 0.8, 0.0, 1.0)
    with_both = run(patched(m), positive=positive, negative=negative)
    assert tiny.difference(with_both, run(patched(m))) > 1e-4
    assert tiny.difference(with_both, run(m, positive=positive, negative=negative)) > 1e-4
    assert torch.isfinite(with_both).all()


@pytest.mark.parametrize("one, other", [(motion_patched, cross_frame_patched), (picture_patched, motion_patched), (picture_patched, cross_frame_patched),
                                        (motion_patched, first_frame_patched), (picture_patched, first_frame_patched), (cross_frame_patched, first_frame_patched)])
def test_our_own_in_either_order(m, one, other):
    a, b = both_matter(m, one, other)
    assert torch.equal(a, b)
