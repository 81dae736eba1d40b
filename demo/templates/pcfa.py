"""A picture becomes a clip by PiLife's cross-frame attention: with a motion module, and with no weights but the image model's."""
from . import files
from .graph import Graph, Group, Node
from .kit import NEGATIVE, Kit

FOX = "a drawing of a fox girl in a pink dress on a green hill, waving her arms"  # ComfyUI's own example picture
CIRCLE = "a red circle moving right on a blue background"  # demo/example.png
NO_PHOTO = "photo, " + NEGATIVE


def attention(model) -> Node:
    return Node("PCFAPatch", {"model": model, "p": 0.5, "seed": 1}, title="Probabilistic Cross-Frame Attention")


def sampler(kit: Kit, model, prompts, latent, denoise: float, method: tuple[str, str] = ("euler", "normal")) -> Node:
    name, scheduler = kit(method, ("euler", "normal"))
    return Node("KSampler", {"model": model, "positive": prompts[0]["CONDITIONING"], "negative": prompts[1]["CONDITIONING"], "latent_image": latent, "seed": 1,
                             "steps": kit(25, 20), "cfg": kit(7.5, 4.0), "sampler_name": name, "scheduler": scheduler, "denoise": denoise})


def with_motion(kit: Kit) -> Graph:
    kit.lora(kit(files.ADAPTER_V3, files.DEMO_WORDS))
    module = kit.loader("FF_MotionModuleLoader", {"motion_module": kit(files.MODULE_V3, files.DEMO_MOTION)})
    prompts, (load, scale, encode) = kit.prompts(FOX, CIRCLE, NO_PHOTO), kit.picture()
    frames = Node("FF_PictureToFrames", {"samples": encode["LATENT"], "frames": 16, "keep_first": True})
    motion = Node("FF_MotionModuleApply", {"model": kit.model, "motion_module": module["motion_module"]})
    pcfa = attention(motion["model"])
    sample = sampler(kit, pcfa["model"], prompts, frames["latent"], kit(0.85, 0.9), ("ddim", "ddim_uniform"))
    decode = kit.decode(sample["LATENT"])
    return kit.graph("Picture to video with motion (AnimateDiff, PCFA)", [
        [Group("Picture and prompt", [*prompts, load, scale, encode])],
        [Group("Method", [frames, motion, pcfa])],
        [Group("Sample", [sample, decode])],
    ], decode["IMAGE"], about="Your picture is frame 1. The motion module lets the frames move as one video, the attention to earlier frames (PCFA) keeps them the same picture.", change=[
        kit.change_picture,
        kit.change_prompt,
        "**denoise** in *KSampler*: lower stays nearer to the picture, higher moves more.",
        "**strength** in *Apply Motion Module*: below 1 the movement is held back.",
        "**frames** in *Picture to Frames*: 16 is what motion modules were trained on.",
    ])


def alone(kit: Kit) -> Graph:
    prompts, (load, scale, encode) = kit.prompts(FOX, CIRCLE, NO_PHOTO), kit.picture()
    frames = Node("FF_PictureToFrames", {"samples": encode["LATENT"], "frames": 16, "keep_first": True})
    pcfa = attention(kit.model)
    sample = sampler(kit, pcfa["model"], prompts, frames["latent"], 0.75, ("dpmpp_2m", "karras"))
    decode = kit.decode(sample["LATENT"])
    return kit.graph("Picture to video, no extra weights (PCFA)", [
        [Group("Picture and prompt", [*prompts, load, scale, encode])],
        [Group("Method", [frames, pcfa])],
        [Group("Sample", [sample, decode])],
    ], decode["IMAGE"], about="Every frame starts from your picture plus noise and looks at the first frame, the one before it and one drawn from those before. Subject and background stay; "
                     "an image model alone moves little. Frame 1 is your picture.", change=[
        kit.change_picture,
        kit.change_prompt,
        "**denoise** in *KSampler*: how far the frames may leave the picture.",
        "**p** in *Probabilistic Cross-Frame Attention*: which earlier frames are looked at.",
        "**frames** in *Picture to Frames*: with little memory start with 8.",
    ])
