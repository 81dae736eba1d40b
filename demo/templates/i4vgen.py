"""I4VGen: the best of many pictures is brought to life by the video model and then sampled once more; from a text, and from a picture of one's own."""
from . import files
from .animatediff import start
from .graph import Graph, Group, Node
from .kit import NEGATIVE, Kit
from .pcfa import CIRCLE, FOX, NO_PHOTO

TO_VIDEO = "a fox girl in a pink dress on a green hill, waving her arms, wind in her hair"


def moved(kit: Kit, module: Node, **more) -> Node:
    return Node("FF_MotionModuleApply", {"model": kit.model, "motion_module": module["motion_module"], **more}, title="Image version (frames 1)" if more else "")


def animated(kit: Kit, model, prompts, anchor) -> tuple[Node, Node]:
    """(NI-VSDS, regeneration) of the anchor's latent."""
    steps, cfg, scheduler = kit(25, 20), kit(7.5, 4.0), kit("ddim_uniform", "normal")
    animate = Node("FF_AnimateAnchor", {"model": model, "positive": prompts[0], "negative": prompts[1], "samples": anchor, "frames": 16, "seed": 1, "steps": steps, "cfg": cfg,
                                        "scheduler": scheduler}, title="Animate Anchor Image (NI-VSDS)")
    regenerate = Node("KSampler", {"model": model, "positive": prompts[0], "negative": prompts[1], "latent_image": animate["latent"], "seed": 2, "steps": steps, "cfg": cfg,
                                   "sampler_name": kit("ddim", "euler"), "scheduler": scheduler, "denoise": 1.0}, title="Regenerate")
    return animate, regenerate


def reward(kit: Kit) -> list[Node]:
    """The last one gives the reward model."""
    if not kit.demo:
        return [Node("FF_RewardModelLoader", {"reward_model": files.REWARD})]
    projection = Node("LoraLoader", {"model": kit.model, "clip": kit.clip, "lora_name": files.DEMO_PROJECTION, "strength_model": 1.0, "strength_clip": 1.0}, title="Text projection")
    vision = Node("CLIPVisionLoader", {"clip_name": files.DEMO_VISION})
    return [projection, vision, Node("FF_CLIPScore", {"clip": projection["CLIP"], "clip_vision": vision["CLIP_VISION"]})]


def chosen(kit: Kit) -> Graph:
    module = start(kit, files.MODULE_V3, files.ADAPTER_V3)
    scores = reward(kit)
    words = Node("PrimitiveStringMultiline", {"value": kit(TO_VIDEO, CIRCLE)}, title="Prompt")
    said = Node("CLIPTextEncode", {"clip": kit.clip, "text": words["STRING"]}, title="Encode prompt")
    unsaid = Node("CLIPTextEncode", {"clip": kit.clip, "text": kit(NEGATIVE, "")}, title="Negative prompt")
    images, video = moved(kit, module, frames=1), moved(kit, module)
    guider = Node("CFGGuider", {"model": images["model"], "positive": said["CONDITIONING"], "negative": unsaid["CONDITIONING"], "cfg": kit(7.5, 4.0)})
    noise = Node("RandomNoise", {"noise_seed": 1})
    method = Node("KSamplerSelect", {"sampler_name": kit("ddim", "euler")})
    sigmas = Node("BasicScheduler", {"model": images["model"], "scheduler": kit("ddim_uniform", "normal"), "steps": kit(25, 20), "denoise": 1.0})
    empty = Node("EmptyLatentImage", {"width": kit.size, "height": kit.size, "batch_size": 16}, title="Candidates")
    search = Node("FF_AnchorImageSearch", {"noise": noise["NOISE"], "guider": guider["GUIDER"], "sampler": method["SAMPLER"], "sigmas": sigmas["SIGMAS"], "latent_image": empty["LATENT"],
                                           "vae": kit.vae, "reward_model": scores[-1]["reward_model"], "prompt": words["STRING"]})
    animate, regenerate = animated(kit, video["model"], (said["CONDITIONING"], unsaid["CONDITIONING"]), search["latent"])
    decode = kit.decode(regenerate["LATENT"])
    return kit.graph("Text to video, the best of 16 pictures (I4VGen)", [
        [Group("Prompt", [words, said, unsaid]), Group("Reward", scores)],
        [Group("Candidates", [images, empty, noise, guider, method, sigmas])],
        [Group("Method: anchor", [search]), Group("Method: motion", [video, animate])],
        [Group("Sample", [regenerate, decode])],
    ], decode["IMAGE"], about="The model draws 16 single pictures, a reward model picks the one that fits the prompt best. NI-VSDS brings it to life with the motion "
                     "module, and one more sampling from noise draws the detail.", change=[
        kit.change_prompt,
        "**noise_seed** in *RandomNoise*: other candidates. **batch_size** in *Candidates*: how many.",
        "**halve_after** in *Search Anchor Image*: empty samples all candidates to the end, with three times the model calls.",
        "**denoise** in *Regenerate*: lower stays nearer to what NI-VSDS made.",
    ])


def own_picture(kit: Kit) -> Graph:
    module = start(kit, files.MODULE_V3, files.ADAPTER_V3)
    prompts, (load, scale, encode) = kit.prompts(FOX, CIRCLE, NO_PHOTO), kit.picture()
    video = moved(kit, module)
    animate, regenerate = animated(kit, video["model"], [p["CONDITIONING"] for p in prompts], encode["LATENT"])
    regenerate.inputs["denoise"] = 0.9
    decode = kit.decode(regenerate["LATENT"])
    return kit.graph("Picture to video, animated (I4VGen)", [
        [Group("Prompt", [*prompts]), Group("Picture", [load, scale, encode])],
        [Group("Method", [video, animate])],
        [Group("Sample", [regenerate, decode])],
    ], decode["IMAGE"], about="Your picture stands in for the best of many: NI-VSDS brings it to life with the motion module, and one more sampling draws the "
                     "detail. The clip is like your picture; frame 1 is not kept exactly.", change=[
        kit.change_picture,
        kit.change_prompt,
        "**denoise** in *Regenerate*: lower stays nearer to your picture and moves less.",
        "**preset** in *Animate Anchor Image*: *paper* takes smaller steps and moves less.",
    ])
