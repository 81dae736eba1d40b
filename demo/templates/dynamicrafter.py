"""DynamiCrafter: a picture, two pictures, or one at both ends become a clip, on the model's own weights."""
from . import files
from .graph import Graph, Group, Node
from .kit import Kit

STEPS, CFG, RESCALE = 50, 7.5, 0.7  # of the official scripts
CANDLE = "a candle flame flickers in the wind"


def graph(kit: Kit, name: str, file: str, prompt: str, size: tuple[int, int], *, whole=False, end=False, loop=False, about: str, change: list[str], more: str = "") -> Graph:
    """whole: the file holds text encoder and image tower too; end: with a last picture."""
    loader, vision = kit.dynamicrafter(file, whole)
    positive = Node("CLIPTextEncode", {"clip": kit.clip, "text": prompt}, title="Prompt")
    negative = Node("CLIPTextEncode", {"clip": kit.clip, "text": ""}, title="Negative prompt")
    first = Node("LoadImage", {"image": "example.png"}, title="First picture" if end else None)
    last = [Node("LoadImage", {"image": "example.png"}, title="Last picture")] if end else []
    given = {"end_image": last[0]["IMAGE"]} if end else {}
    condition = Node("FF_DynamiCrafterConditioning", {
        "positive": positive["CONDITIONING"], "negative": negative["CONDITIONING"], "image_projector": loader["image_projector"], "clip_vision": vision, "vae": kit.vae,
        "image": first["IMAGE"], "width": size[0], "height": size[1], "frames": 16, "fps": 0, **given, "loop": loop})
    guider = Node("FF_MultiConditionGuider", {"model": kit.model, "positive": condition["positive"], "negative": condition["negative"], "text_cfg": CFG, "image_cfg": CFG,
                                              "guidance_rescale": RESCALE})
    noise, method = Node("RandomNoise", {"noise_seed": 1}), Node("FF_DynamiCrafterSampler", {"eta": 1.0, "end_as_published": True})
    sigmas = Node("BasicScheduler", {"model": kit.model, "scheduler": "simple", "steps": STEPS, "denoise": 1.0})
    sample = Node("SamplerCustomAdvanced", {"noise": noise["NOISE"], "guider": guider["guider"], "sampler": method["sampler"], "sigmas": sigmas["SIGMAS"],
                                            "latent_image": condition["latent"]})
    decode = kit.decode(sample["output"])
    rest = [Node("ImageFromBatch", {"image": decode["IMAGE"], "batch_index": 0, "length": 15}, title="Without the last frame")] if loop else []
    return kit.graph(name, [
        [Group("Prompt", [positive, negative]), Group("Pictures" if end else "Picture", [first, *last])],
        [Group("Method", [condition])],
        [Group("Sample", [noise, guider, method, sigmas, sample, decode, *rest])],
    ], rest[0]["IMAGE"] if loop else decode["IMAGE"], about=about, change=change, more=more)


SHAPE = "**Load Image**: any size. The frame is cut out of its middle."
MOTION = "**fps** in *DynamiCrafter Conditioning*: lower moves more. 0 is what the model was shown most ({})."
CARE = "**text_cfg** and **image_cfg** in *Multi-Condition Guider*: how closely it follows the prompt and the picture. Equal: the published way; different: half as slow again."
FASTER = "**steps** in *BasicScheduler*: 30 are often enough."
TRIED = "Tried on small models with random weights only."


def picture_512(kit: Kit) -> Graph:
    return graph(kit, "Picture to video (DynamiCrafter 512)", files.DC_512, CANDLE, (512, 320), whole=True, about=(
        "DynamiCrafter sees the picture twice: what CLIP says of it, and its latent beside the noise of every frame. It runs on ComfyUI's own UNet, so that LoRAs and ControlNets "
        "of SD2.1 go behind *Load DynamiCrafter*."), change=[SHAPE, "**Prompt**: what happens.", MOTION.format("24; 15 to 30"), CARE, FASTER], more=TRIED)


def picture_1024(kit: Kit) -> Graph:
    return graph(kit, "Picture to video, large (DynamiCrafter 1024)", files.DC_1024, CANDLE, (1024, 576), about=(
        "As before, with the model for 1024 x 576. Text encoder and image tower are files of their own here, since the pruned file lacks them."), change=[
            SHAPE, "**Prompt**: what happens.", MOTION.format("10; 5 to 15"), CARE, FASTER], more=TRIED)


def two_pictures(kit: Kit) -> Graph:
    return graph(kit, "Two pictures to video (DynamiCrafter interpolation)", files.DC_INTERP, "a girl turns her head", (512, 320), end=True, about=(
        "The clip begins with one picture and ends with the other: the interpolation model fills in what lies between."), change=[
            "**First picture**, **Last picture**: of the same size, and of the same scene.", "**Prompt**: what happens between.", MOTION.format("5; 5 to 30"), CARE, FASTER], more=TRIED)


def loop(kit: Kit) -> Graph:
    return graph(kit, "Picture to loop (DynamiCrafter interpolation)", files.DC_INTERP, "waves on the sea, clouds drift", (512, 320), loop=True, about=(
        "The same picture is the first and the last frame; the last one is left out, so that the clip goes round."), change=[
            SHAPE, "**Prompt**: what goes on.", MOTION.format("5; 5 to 30"), CARE, FASTER], more=TRIED)
