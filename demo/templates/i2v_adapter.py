"""A picture becomes a clip by I2V-Adapter: motion module, first-frame attention, Content-Adapter, a start near the picture. Alone, with what users own, with a ControlNet, long, SDXL."""
from dataclasses import dataclass

from . import files
from .graph import Graph, Group, Node
from .kit import Kit
from .pcfa import CIRCLE, FOX, NO_PHOTO

NAME = "Picture to video, moves as the prompt says (I2V-Adapter)"


@dataclass(frozen=True)
class Files:
    """What an image model's family brings; i2v: "" where none is published."""
    module: str
    i2v: str
    content: str


OF_SD15 = Files(files.MODULE_V1, files.I2V, files.CONTENT)
OF_SDXL = Files(files.MODULE_XL, "", files.CONTENT_XL)


def graph(kit: Kit, name: str, *, demo: str = CIRCLE, user: str = FOX, of: Files = OF_SD15, frames: int = 16, windows: dict | None = None, control=None, about: str,
          change: list[str], more: str = "") -> Graph:
    """control(kit, prompts, picture) -> nodes of a ControlNet, of which the last gives positive and negative."""
    if kit.demo:
        kit.lora(files.DEMO_WORDS)
    module = Node("FF_MotionModuleLoader", {"motion_module": kit(of.module, files.DEMO_MOTION)})
    off = not kit(of.i2v, files.DEMO_I2V)
    adapter = Node("FF_I2VAdapterLoader", {"i2v_adapter": kit(of.i2v, files.DEMO_I2V)}, bypassed=off)
    content = Node("FF_ContentAdapterLoader", {"content_adapter": kit(of.content, files.DEMO_CONTENT)}, title="Load Content-Adapter")
    vision = Node("CLIPVisionLoader", {"clip_name": kit(files.VISION, files.DEMO_VISION)})
    prompts, (load, scale, encode) = kit.prompts(user, demo, NO_PHOTO), kit.picture()
    positive, negative, guide = prompts[0]["CONDITIONING"], prompts[1]["CONDITIONING"], []
    if control:
        guide = control(kit, positive, negative)
        positive, negative = guide[-1]["positive"], guide[-1]["negative"]
    spread = [Node("ContextWindowsManual", {"model": kit.model, **windows})] if windows else []
    method = [Node("FF_MotionModuleApply", {"model": spread[0]["MODEL"] if spread else kit.model, "motion_module": module["motion_module"]})]
    method.append(Node("I2VAdapterApply", {"model": method[-1]["model"], "i2v_adapter": adapter["i2v_adapter"], "first_frame": encode["LATENT"]}, bypassed=off))
    method.append(Node("FF_ContentAdapterApply", {"model": method[-1]["model"], "content_adapter": content["content_adapter"], "clip_vision": vision["CLIP_VISION"],
                                                  "image": scale["IMAGE"], "weight": 1.0}, title="Apply Content-Adapter"))
    model = method[-1]["model"]
    steps, scheduler = kit(25, 20), kit("ddim_uniform", "normal")
    start = Node("FrameSimilarityPrior", {"model": model, "samples": encode["LATENT"], "frames": frames, "p": 0.5, "t0": 1.0, "seed": 1, "scheduler": scheduler, "steps": steps},
                 title="Frame Similarity Prior")
    sample = Node("KSampler", {"model": model, "positive": positive, "negative": negative, "latent_image": start["latent"], "seed": 1, "steps": steps, "cfg": kit(7.5, 2.0),
                               "sampler_name": kit("ddim", "euler"), "scheduler": scheduler, "denoise": start["denoise"]})
    decode = kit.decode(sample["LATENT"])
    colors = Node("FF_MatchFrameColors", {"images": decode["IMAGE"], "strength": kit(1.0, 0.0)}, title="Match Frame Colors")
    says = Group("Prompt", [*prompts])
    before = [Group(title, nodes) for title, nodes in (("ControlNet", guide), ("Method: windows", spread)) if nodes]
    more = "\n\n".join(filter(None, [more, kit("", "*Match Frame Colors* is off: flat colours lose by it.")]))
    return kit.graph(name, [
        [Group("Load: motion and adapters", [module, adapter, content, vision]), Group("Picture", [load, scale, encode])],
        *([[says, *before]] if before else []),
        [*([] if before else [says]), Group("Method", method)],
        [Group("Method: start", [start]), Group("Sample", [sample, decode, colors])],
    ], colors["images"], about=about, change=change, more=more)


def changes(kit: Kit, *more: str) -> list[str]:
    return [
        kit.change_picture,
        kit.change_prompt,
        *filter(None, more),
        "**t0** and **p** in *Frame Similarity Prior*: lower stays nearer to the picture and moves less.",
        "**strength** in *Apply I2V-Adapter* holds the frames to the picture, **weight** in *Apply Content-Adapter* to its subject.",
    ]


def alone(kit: Kit) -> Graph:
    return graph(kit, NAME, about="Your picture is frame 1, free of noise at every step; all frames look at it. The motion module moves them as the prompt says.", change=changes(
        kit, "**frames** in *Frame Similarity Prior*: 16 is what motion modules were trained on."))


def with_own_files(kit: Kit) -> Graph:
    kit.lora(kit("", files.DEMO_NIGHT), kit(0.8, 0.5), bypassed=not kit.demo)
    return graph(kit, "Picture to video, own checkpoint and LoRA (I2V-Adapter)", about="The adapter changes nothing of your image model: its style stays."
                 + kit(" The LoRA is bypassed: choose yours, then Ctrl-B on the purple node.", " The LoRA is night."), change=changes(
        kit, kit("**ckpt_name** in *Load Checkpoint*: your SD1.5 checkpoint. **lora_name** in *Load LoRA*: yours.", "")))


def with_poses(kit: Kit) -> Graph:
    return graph(kit, "Picture to video, ControlNet for each frame (I2V-Adapter)", user="a fox girl in a pink dress, dancing on a green hill", control=poses, about=(
        "The ControlNet says where each frame's parts are, the picture how they look." + kit(" The video shows poses as OpenPose draws them.", " The video shows outlines.")), change=changes(
        kit, "**file** in *Load Video*: " + kit("poses, one for each frame, of the picture's proportions; the first should be that of the picture.", "outlines, one for each frame."),
        "**strength** in *Apply ControlNet*: lower leaves more to the motion module."))


def poses(kit: Kit, positive, negative) -> list[Node]:
    loader = kit.loader("ControlNetLoader", {"control_net_name": kit(files.POSES, files.DEMO_OUTLINES)})
    video = Node("LoadVideo", {"file": kit("poses.mp4", "example_outlines.mp4")})
    parts = Node("GetVideoComponents", {"video": video["VIDEO"]})
    apply = Node("ControlNetApplyAdvanced", {"positive": positive, "negative": negative, "control_net": loader["CONTROL_NET"], "image": parts["images"], "strength": 0.8,
                                             "start_percent": 0.0, "end_percent": 0.8})
    return [video, parts, apply]


def long(kit: Kit) -> Graph:
    windows = {"context_length": kit(16, 15), "context_overlap": kit(4, 8), "context_schedule": "standard_static", "fuse_method": "pyramid", "dim": 0, "freenoise": True,
               "causal_window_fix": False}
    return graph(kit, "Picture to video, long (I2V-Adapter)", demo="a red circle standing still on a blue background", frames=64, windows=windows,
                 about="*Context Windows* shows the motion module the clip in windows that overlap. Your picture stands at the head of each, so that the last frames know it like the first.",
                 change=changes(kit, "**frames** in *Frame Similarity Prior*: the length of the clip. What goes on for ever (wind, water, walking) suits windows best."),
                 more="Leave **dim** at 0 and **causal_window_fix** off: it is for video VAEs.")


def sdxl(kit: Kit) -> Graph:
    kit.choose(files.SDXL, 768)
    return graph(kit, "Picture to video, SDXL (I2V-Adapter)", of=OF_SDXL, about=(
        "The same on SDXL." + kit(" No I2V-Adapter for SDXL is published: both its nodes are bypassed until you have one (choose it, then Ctrl-B on the purple nodes). "
                                  "Until then *Frame Similarity Prior* keeps frame 1, and the Content-Adapter the subject.", " The demo has no SDXL model: this is its small one.")),
                 change=changes(kit, "**t0**: without the I2V-Adapter start with 0.85."))
