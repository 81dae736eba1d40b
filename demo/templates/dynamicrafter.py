"""DynamiCrafter: a picture, two pictures, or one at both ends become a clip, on the model's own weights; with I4VGen's second stage; and VideoCrafter 2 from a text."""
from . import files
from .graph import Graph, Group, Node, Output
from .kit import Kit

STEPS, CFG, RESCALE, CFG_VIDEOCRAFTER = 50, 7.5, 0.7, 12.0  # of the official scripts
CANDLE = "a candle flame flickers in the wind"


def conditioning(kit: Kit, loader: Node, vision, said, image, size: tuple[int, int], **more) -> Node:
    return Node("FF_DynamiCrafterConditioning", {
        "positive": said[0]["CONDITIONING"], "negative": said[1]["CONDITIONING"], "image_projector": loader["image_projector"], "clip_vision": vision, "vae": kit.vae,
        "image": image, "width": size[0], "height": size[1], "frames": 16, "fps": 0, **more})


def guided(kit: Kit, condition: Node) -> Node:
    return Node("FF_MultiConditionGuider", {"model": kit.model, "positive": condition["positive"], "negative": condition["negative"], "text_cfg": CFG, "image_cfg": CFG,
                                            "guidance_rescale": RESCALE})


def sampled(kit: Kit, guider: Output, latent: Output, scheduler: str, denoise: float = 1.0, seed: int = 1) -> list[Node]:
    """The last one samples."""
    noise, method = Node("RandomNoise", {"noise_seed": seed}), Node("FF_DynamiCrafterSampler", {"eta": 1.0, "end_as_published": True})
    sigmas = Node("BasicScheduler", {"model": kit.model, "scheduler": scheduler, "steps": STEPS, "denoise": denoise})
    return [noise, method, sigmas, Node("SamplerCustomAdvanced", {
        "noise": noise["NOISE"], "guider": guider, "sampler": method["sampler"], "sigmas": sigmas["SIGMAS"], "latent_image": latent})]


def graph(kit: Kit, name: str, file: str, prompt: str, size: tuple[int, int], *, whole=False, end=False, loop=False, about: str, change: list[str], more: str = "") -> Graph:
    """whole: the file holds text encoder and image tower too; end: with a last picture."""
    loader, vision = kit.dynamicrafter(file, whole)
    said, first = kit.prompts(prompt, "", ""), Node("LoadImage", {"image": "example.png"}, title="First picture" if end else None)
    last = [Node("LoadImage", {"image": "example.png"}, title="Last picture")] if end else []
    condition = conditioning(kit, loader, vision, said, first["IMAGE"], size, **({"end_image": last[0]["IMAGE"]} if end else {}), loop=loop)
    guider = guided(kit, condition)
    sample = sampled(kit, guider["guider"], condition["latent"], "simple")
    decode = kit.decode(sample[-1]["output"])
    rest = [Node("ImageFromBatch", {"image": decode["IMAGE"], "batch_index": 0, "length": 15}, title="Without the last frame")] if loop else []
    return kit.graph(name, [
        [Group("Prompt", [*said]), Group("Pictures" if end else "Picture", [first, *last])],
        [Group("Method", [condition])],
        [Group("Sample", [guider, *sample, decode, *rest])],
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


def animated(kit: Kit) -> Graph:
    loader, vision = kit.dynamicrafter(files.DC_512, True)
    said, picture = kit.prompts(CANDLE, "", ""), Node("LoadImage", {"image": "example.png"})
    scale = Node("ImageScale", {"image": picture["IMAGE"], "upscale_method": "lanczos", "width": 512, "height": 320, "crop": "center"})
    encode = Node("VAEEncode", {"pixels": scale["IMAGE"], "vae": kit.vae})
    condition = conditioning(kit, loader, vision, said, scale["IMAGE"], (512, 320))
    animate = Node("FF_AnimateAnchor", {"model": kit.model, "positive": condition["positive"], "negative": condition["negative"], "samples": encode["LATENT"], "frames": 16, "seed": 1,
                                        "steps": STEPS, "cfg": CFG, "scheduler": "simple"}, title="Animate Anchor Image (NI-VSDS)")
    guider = guided(kit, condition)
    sample = sampled(kit, guider["guider"], animate["latent"], "simple", denoise=0.9, seed=2)
    decode = kit.decode(sample[-1]["output"])
    return kit.graph("Picture to video, animated (I4VGen, DynamiCrafter)", [
        [Group("Prompt", [*said]), Group("Picture", [picture, scale, encode])],
        [Group("Method", [condition, animate])],
        [Group("Sample", [guider, *sample, decode])],
    ], decode["IMAGE"], about="NI-VSDS brings the picture to life with DynamiCrafter, and one more sampling draws the detail; against first and last frames that fall apart.", change=[
        SHAPE, "**Prompt**: what happens.", MOTION.format("24; 15 to 30"), "**denoise** in *BasicScheduler*: lower stays nearer to what NI-VSDS made.",
        "**preset** in *Animate Anchor Image*: *paper* takes smaller steps and moves less."], more=TRIED)


def videocrafter(kit: Kit) -> Graph:
    kit.dynamicrafter(files.VC_2, True)
    said = kit.prompts("a girl with a red umbrella walks through the rain, city lights behind her", "", "")
    condition = Node("FF_VideoCrafterConditioning", {
        "model": kit.model, "positive": said[0]["CONDITIONING"], "negative": said[1]["CONDITIONING"], "width": 512, "height": 320, "frames": 16, "fps": 28})
    guider = Node("CFGGuider", {"model": kit.model, "positive": condition["positive"], "negative": condition["negative"], "cfg": CFG_VIDEOCRAFTER})
    sample = sampled(kit, guider["GUIDER"], condition["latent"], "ddim_uniform")
    decode = kit.decode(sample[-1]["output"])
    return kit.graph("Text to video (VideoCrafter2)", [
        [Group("Prompt", [*said])],
        [Group("Method", [condition])],
        [Group("Sample", [guider, *sample, decode])],
    ], decode["IMAGE"], about="VideoCrafter 2 on ComfyUI's own UNet, sampled as its scripts do. LoRAs and ControlNets of SD2.1 go behind *Load DynamiCrafter*.", change=[
        "**Prompt**: what is to be seen, and how it moves.", "**fps** in *VideoCrafter Conditioning*: lower moves more.", "**cfg** in *CFGGuider*: lower is calmer and less sharp.", FASTER],
        more=TRIED)
