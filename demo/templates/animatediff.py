"""Text becomes a clip by AnimateDiff's motion modules: plain, with a moving camera, and longer than the module knows."""
from . import files
from .graph import Graph, Group, Node
from .kit import Kit
from .pcfa import sampler


def start(kit: Kit, module: str, adapter: str | None) -> Node:
    """The loaders; the demo's module always goes with its LoRA."""
    if kit(adapter, files.DEMO_WORDS):
        kit.lora(kit(adapter, files.DEMO_WORDS))
    return kit.loader("FF_MotionModuleLoader", {"motion_module": kit(module, files.DEMO_MOTION)})


def graph(kit: Kit, name: str, module: Node, user: str, demo: str, *, frames: int = 16, windows: dict | None = None, **note) -> Graph:
    prompts = kit.prompts(user, demo)
    empty = Node("EmptyLatentImage", {"width": kit.size, "height": kit.size, "batch_size": frames})
    method = [Node("FF_MotionModuleApply", {"model": kit.model, "motion_module": module["motion_module"]})]
    model = method[0]["model"]
    if windows:
        method.append(Node("ContextWindowsManual", {"model": model, **windows}))
        model = method[1]["MODEL"]
    sample = sampler(kit, model, prompts, empty["LATENT"], 1.0, ("ddim", "ddim_uniform"))
    decode = kit.decode(sample["LATENT"])
    return kit.graph(name, [
        [Group("Prompt and size", [*prompts, empty])],
        [Group("Method", method)],
        [Group("Sample", [sample, decode])],
    ], decode["IMAGE"], **note)


def text(kit: Kit) -> Graph:
    module = start(kit, files.MODULE_V3, files.ADAPTER_V3)
    return graph(kit, "Text to video (AnimateDiff)", module,
                 "a fox girl in a pink dress on a green hill, waving her arms, wind in her hair", "a red circle moving right on a blue background",
                 about="A motion module adds layers to the image model that see all frames at once; the frames are sampled together and move as one video.", change=[
        kit.change_prompt,
        f"**batch_size** in *Empty Latent Image*: the length; {kit('16 is what the modules were trained on, 32 the most (24 with v1)', 'the module knows 16 frames')}.",
        "**strength** in *Apply Motion Module*: below 1 the movement is held back.",
        "**seed** and **cfg** in *KSampler*.",
    ], more="LoRAs go before *Apply Motion Module*, ControlNets on the prompts.")


def camera(kit: Kit) -> Graph:
    module = start(kit, files.MODULE_V2, None)
    lora = kit.loader("FF_MotionLoraLoader", {"motion_module": module["motion_module"], "lora": kit(files.PAN_LEFT, files.DEMO_PAN)})
    return graph(kit, "Text to video, moving camera (motion LoRA)", lora,
                 "a lighthouse on a cliff above the sea, evening light", "a yellow circle standing still on a green background",
                 about="A motion LoRA changes the motion module: the camera zooms, pans, tilts or rolls, whatever the prompt says." + kit("", " The demo's pans to the left."), change=[
        f"**strength** in *Load Motion LoRA*: {kit('1 as trained, less for a calmer camera', '1 as trained, -1 for the other direction; it hardly acts at 0.5')}.",
        kit.change_prompt,
        "**lora**: another movement. Several *Load Motion LoRA* nodes may follow one another.",
        "**seed** and **cfg** in *KSampler*.",
    ], more="Image LoRAs go between *Load Checkpoint* and *Apply Motion Module*.")


def long(kit: Kit) -> Graph:
    module = start(kit, files.MODULE_V3, files.ADAPTER_V3)
    windows = {"context_length": 16, "context_overlap": kit(4, 8), "context_schedule": "standard_static", "fuse_method": "pyramid", "dim": 0, "freenoise": True,
               "causal_window_fix": False}
    return graph(kit, "Text to video, long (context windows)", module,
                 "a waterfall in a green forest, mist, sunlight through the leaves", "a red star standing still on a blue background", frames=64, windows=windows,
                 about="A motion module knows 16 frames. *Context Windows* shows it the clip in windows that overlap and blends what they say; "
                       "so a clip may be as long as you have patience.", change=[
        kit.change_prompt + " What goes on for ever (water, walking) suits windows best.",
        "**batch_size** in *Empty Latent Image*: the length of the clip.",
        "**context_overlap** in *Context Windows*: more is slower and steadier.",
        "**freenoise**: repeats the first window's noise in another order, so that the windows agree.",
    ], more="Leave **dim** at 0 and **causal_window_fix** off: it is for video VAEs.")
