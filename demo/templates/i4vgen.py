"""I4VGen: the best of many pictures is brought to life by the video model and then sampled once more; from a text, and from a picture of one's own, with
AnimateDiff, I2V-Adapter and SparseCtrl as the model that is guided; and from a text on Wan."""
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import files
from .animatediff import start
from .graph import Graph, Group, Node
from .kit import NEGATIVE, Kit
from .pcfa import CIRCLE, FOX, NO_PHOTO

TO_VIDEO = "a fox girl in a pink dress on a green hill, waving her arms, wind in her hair"


def moved(kit: Kit, module: Node) -> Node:
    return Node("FF_MotionModuleApply", {"model": kit.model, "motion_module": module["motion_module"]})


@dataclass(frozen=True)
class Settings:
    """Of both samplings. denoise: of the second (the paper's p_re)."""
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    denoise: float = 1.0
    frames: int = 16


def of_sd15(kit: Kit, **other) -> Settings:
    return replace(Settings(kit(25, 20), kit(7.5, 4.0), kit("ddim", "euler"), kit("ddim_uniform", "normal")), **other)


def animated(model, prompts, anchor, of: Settings) -> tuple[Node, Node]:
    """(NI-VSDS, regeneration) of the anchor's latent; prompts: outputs."""
    same = {"model": model, "positive": prompts[0], "negative": prompts[1], "steps": of.steps, "cfg": of.cfg, "scheduler": of.scheduler}
    animate = Node("FF_AnimateAnchor", {**same, "samples": anchor, "frames": of.frames, "seed": 1}, title="Animate Anchor Image (NI-VSDS)")
    return animate, Node("KSampler", {**same, "latent_image": animate["latent"], "seed": 2, "sampler_name": of.sampler, "denoise": of.denoise}, title="Regenerate")


def reward(kit: Kit) -> list[Node]:
    """The last one gives the reward model."""
    if not kit.demo:
        return [Node("FF_RewardModelLoader", {"reward_model": files.REWARD})]
    projection = Node("LoraLoader", {"model": kit.model, "clip": kit.clip, "lora_name": files.DEMO_PROJECTION, "strength_model": 1.0, "strength_clip": 1.0}, title="Text projection")
    vision = Node("CLIPVisionLoader", {"clip_name": files.DEMO_VISION})
    return [projection, vision, Node("FF_CLIPScore", {"clip": projection["CLIP"], "clip_vision": vision["CLIP_VISION"]})]


def best_of_16(kit: Kit, model, said, unsaid, words: Node, scores: list[Node], empty: Node, of: Settings) -> tuple[list[Node], Node]:
    """(what goes into the search, the search). model: of single pictures; empty: latents of 16 of them."""
    guider = Node("CFGGuider", {"model": model, "positive": said, "negative": unsaid, "cfg": of.cfg})
    noise, method = Node("RandomNoise", {"noise_seed": 1}), Node("KSamplerSelect", {"sampler_name": of.sampler})
    sigmas = Node("BasicScheduler", {"model": model, "scheduler": of.scheduler, "steps": of.steps, "denoise": 1.0})
    return [empty, noise, guider, method, sigmas], Node("FF_AnchorImageSearch", {
        "noise": noise["NOISE"], "guider": guider["GUIDER"], "sampler": method["SAMPLER"], "sigmas": sigmas["SIGMAS"], "latent_image": empty["LATENT"], "vae": kit.vae,
        "reward_model": scores[-1]["reward_model"], "prompt": words["STRING"]})


def words_of(kit: Kit) -> Node:
    """The prompt as text: the reward model reads it too."""
    return Node("PrimitiveStringMultiline", {"value": kit(TO_VIDEO, CIRCLE)}, title="Prompt")


def encoded(kit: Kit, words: Node, unsaid=None, of: str = "") -> tuple[Node, Node]:
    """(the prompt's CONDITIONING, the negative one). unsaid: a node with the negative prompt as text, None: it is typed here."""
    return (Node("CLIPTextEncode", {"clip": kit.clip, "text": words["STRING"]}, title=f"Encode prompt{of}"),
            Node("CLIPTextEncode", {"clip": kit.clip, "text": unsaid["STRING"] if unsaid else kit(NEGATIVE, "")}, title=f"{'Encode n' if unsaid else 'N'}egative prompt{of}"))


def change_candidates(kit: Kit, *more: str) -> list[str]:
    return [
        kit.change_prompt,
        "**noise_seed** in *RandomNoise*: other candidates. **batch_size** in *Candidates*: how many.",
        *more,
        "**denoise** in *Regenerate*: lower stays nearer to what NI-VSDS made.",
    ]


def chosen(kit: Kit) -> Graph:
    images, scores, words, of = kit.model, reward(kit), words_of(kit), of_sd15(kit)  # the checkpoint as it is, without what is for motion
    unsaid = Node("PrimitiveStringMultiline", {"value": ""}, title="Negative prompt") if kit.demo else None
    pictures = said = encoded(kit, words, unsaid, kit("", " (pictures)"))
    module = start(kit, files.MODULE_V3, files.ADAPTER_V3)
    video, typed = moved(kit, module), [words, *said]
    if kit.demo:  # whose LoRA is on the text encoder too
        said = encoded(kit, words, unsaid)
        typed = [words, unsaid, *said]
    empty = Node("EmptyLatentImage", {"width": kit.size, "height": kit.size, "batch_size": 16}, title="Candidates")
    candidates, search = best_of_16(kit, images, *(node["CONDITIONING"] for node in pictures), words, scores, empty, of)
    animate, regenerate = animated(video["model"], [node["CONDITIONING"] for node in said], search["latent"], of)
    decode = kit.decode(regenerate["LATENT"])
    return kit.graph("Text to video, the best of 16 pictures (I4VGen)", [
        [Group("Prompt", typed), Group("Reward", scores)],
        [Group("Candidates", [*(pictures if kit.demo else ()), *candidates])],
        [Group("Method: anchor", [search]), Group("Method: motion module", [video])],
        [Group("Method: motion", [animate]), Group("Sample", [regenerate, decode])],
    ], decode["IMAGE"], about="The model draws 16 single pictures, a reward model picks the one that fits the prompt best. NI-VSDS brings it to life with the motion "
                     "module, and one more sampling from noise draws the detail.", change=change_candidates(
        kit, "**draft_steps** in *Search Anchor Image*: more find the best one more surely; 0 samples all candidates to the end, with three times the model calls."))


def wan(kit: Kit) -> Graph:
    kit.parts(files.WAN, files.WAN_TEXT, "wan", files.WAN_VAE, fps=16.0)
    of = Settings(30, 6.0, "uni_pc", "simple", denoise=0.8, frames=9)
    scores, words = reward(kit), words_of(kit)
    said, unsaid = encoded(kit, words)
    shift = Node("ModelSamplingSD3", {"model": kit.model, "shift": 8.0})
    empty = Node("EmptyHunyuanLatentVideo", {"width": 832, "height": 480, "length": 1, "batch_size": 16}, title="Candidates")
    candidates, search = best_of_16(kit, shift["MODEL"], said["CONDITIONING"], unsaid["CONDITIONING"], words, scores, empty, of)
    animate, regenerate = animated(shift["MODEL"], (said["CONDITIONING"], unsaid["CONDITIONING"]), search["latent"], of)
    decode = kit.decode(regenerate["LATENT"])
    return kit.graph("Text to video on Wan, the best of 16 pictures (I4VGen)", [
        [Group("Prompt", [words, said, unsaid]), Group("Reward", scores)],
        [Group("Candidates", [shift, *candidates])],
        [Group("Method: anchor", [search]), Group("Method: motion", [animate])],
        [Group("Sample", [regenerate, decode])],
    ], decode["IMAGE"], about="Wan draws 16 single pictures (clips of one frame), a reward model picks the one that fits the prompt best. NI-VSDS brings it to life with Wan "
                     "itself, and one more sampling draws the detail.", change=change_candidates(
        kit, "**frames** in *Animate Anchor Image*: latent frames; 9 are 33 frames of video, 21 are 81.",
        "**draft_steps** in *Search Anchor Image*: more find the best one more surely; 0 samples all candidates to the end."), more="Tried on small models with random weights only.")


def of_picture(kit: Kit, name: str, method: Callable, of: Settings, **note) -> Graph:
    """method(kit, module, prompts, load, scale, encode) -> (groups before the last, nodes of the last, its model, its prompts)."""
    module = start(kit, files.MODULE_V3, files.ADAPTER_V3)
    prompts, picture = kit.prompts(FOX, CIRCLE, NO_PHOTO), kit.picture()
    groups, nodes, model, said = method(kit, module, [p["CONDITIONING"] for p in prompts], *picture)
    animate, regenerate = animated(model, said, picture[-1]["LATENT"], of)
    decode = kit.decode(regenerate["LATENT"])
    return kit.graph(name, [
        [Group("Prompt", [*prompts]), Group("Picture", [*picture])],
        [*groups, Group("Method", [*nodes, animate])],
        [Group("Sample", [regenerate, decode])],
    ], decode["IMAGE"], **note)


def changes(kit: Kit, *more: str) -> list[str]:
    return [kit.change_picture, kit.change_prompt, *more, "**preset** in *Animate Anchor Image*: *paper* takes smaller steps and moves less."]


def own_picture(kit: Kit) -> Graph:
    def method(kit, module, prompts, *_):
        video = moved(kit, module)
        return [], [video], video["model"], prompts

    return of_picture(kit, "Picture to video, animated (I4VGen)", method, of_sd15(kit, denoise=0.9), about=(
        "Your picture stands in for the best of many: NI-VSDS brings it to life with the motion module, and one more sampling draws the detail. The clip is like your "
        "picture; frame 1 is not kept exactly."), change=changes(kit, "**denoise** in *Regenerate*: lower stays nearer to your picture and moves less."))


def first_frame_kept(kit: Kit) -> Graph:
    def method(kit, module, prompts, load, scale, encode):
        video, loader = moved(kit, module), kit.loader("FF_I2VAdapterLoader", {"i2v_adapter": kit(files.I2V, files.DEMO_I2V)})
        apply = Node("I2VAdapterApply", {"model": video["model"], "i2v_adapter": loader["i2v_adapter"], "first_frame": encode["LATENT"]})
        return [], [video, apply], apply["model"], prompts

    return of_picture(kit, "Picture to video, animated, frame 1 kept (I4VGen, I2V-Adapter)", method, of_sd15(kit, cfg=kit(7.5, 2.0)), about=(
        "As before, on a model that sees your picture as frame 1 at every step: NI-VSDS moves the other frames, the second sampling too, and frame 1 stays your picture."),
        change=changes(kit, "**strength** in *Apply I2V-Adapter*: how much the frames look at the picture."))


def sparse_ctrl(kit: Kit) -> Graph:
    def method(kit, module, prompts, load, scale, encode):
        video, loader = moved(kit, module), kit.loader("FF_SparseCtrlLoader", {"sparse_ctrl": files.SPARSE})
        apply = Node("FF_SparseCtrlApply", {"positive": prompts[0], "negative": prompts[1], "control_net": loader["control_net"], "image": scale["IMAGE"], "vae": kit.vae})
        return [], [video, apply], video["model"], [apply["positive"], apply["negative"]]

    return of_picture(kit, "Picture to video, animated (I4VGen, SparseCtrl)", method, of_sd15(kit), about=(
        "SparseCtrl tells the model your picture for frame 1; NI-VSDS brings it to life with that model, and one more sampling from noise draws the detail."), change=changes(
        kit, "**frame_numbers** in *Apply SparseCtrl*: where the picture stands (0: first, -1: last). A batch of pictures has a number for each.",
        "**end_percent** in *Apply SparseCtrl*: lower frees the last steps' detail from the picture."),
        more="Without *Animate Anchor Image* (an empty latent of 16 into *Regenerate*) it is plain SparseCtrl.")
