"""PiLife, complete: inversion, motion map, motion noise and cross-frame attention; alone, and with a LoRA and a ControlNet."""
from . import files
from .graph import Graph, Group, Node
from .kit import Kit
from .pcfa import FOX, attention

GROWING = "a red circle growing on a blue background"


def graph(kit: Kit, name: str, *, controlled: bool, about: str, change: list[str]) -> Graph:
    load, scale, encode = kit.picture()
    prompt = Node("FF_MotionTokens", {"clip": kit.clip, "text": kit(FOX, GROWING)}, title="Prompt", lines=4)
    none = Node("CLIPTextEncode", {"clip": kit.clip, "text": ""}, title="Negative prompt")
    positive, negative, guide = prompt["conditioning"], none["CONDITIONING"], []
    if controlled:
        guide = outlines(kit, positive, negative, scale["IMAGE"])
        positive, negative = guide[-1]["positive"], guide[-1]["negative"]
    model, latent = kit.model, encode["LATENT"]
    invert = Node("MotionAwareInversion", {"model": model, "samples": latent, "positive": positive, "negative": negative, "mode": "conditional", "steps": 50, "start_timestep": 761},
                  title="Motion-Aware Inversion")
    mask = Node("FF_MotionAttentionMap", {"model": model, "samples": latent, "positive": positive, "motion_tokens": prompt["motion_tokens"], "start_timestep": 761, "end_timestep": 401,
                                          "count": 4, "seed": 1, "smoothing": 1.0, "resolutions": kit("1/2 + 1/4", "1/1")}, title="Motion Attention Map")
    preview = Node("MaskPreview", {"mask": mask["mask"]}, title="Where it moves")
    frames = Node("FF_PictureToFrames", {"samples": invert["latent"], "frames": 6, "keep_first": True})
    noise = Node("MotionNoiseInit", {"inversion": invert["inversion"], "samples": frames["latent"], "motion": mask["mask"], "eta": 1.0, "seed": 1}, title="Motion Noise")
    clipper = Node("NoiseClipper", {"noise": noise["noise"], "inversion": invert["inversion"], "samples": frames["latent"], "margin": 0.1, "seed": 1}, title="Noise Clipper")
    pcfa = attention(model)
    guider = Node("CFGGuider", {"model": pcfa["model"], "positive": positive, "negative": invert["conditioning"], "cfg": kit(7.5, 4.0)})
    method = Node("KSamplerSelect", {"sampler_name": "ddim"})
    sample = Node("SamplerCustomAdvanced", {"noise": clipper["noise"], "guider": guider["GUIDER"], "sampler": method["SAMPLER"], "sigmas": invert["sigmas"],
                                            "latent_image": frames["latent"]})
    decode = kit.decode(sample["output"])
    return kit.graph(name, [
        [Group("Picture and prompt", [prompt, none, load, scale, encode])],
        [*([Group("ControlNet", guide)] if guide else []), Group("Method: inversion", [invert])],
        [Group("Method: motion map", [mask]), Group("Method: start noise", [frames, noise, clipper])],
        [Group("Motion mask", [preview]), Group("Method: attention", [pcfa]), Group("Sample", [guider, method, sample, decode])],
    ], decode["IMAGE"], about=about, change=change,
        more="**cfg** in *CFGGuider* acts on what the inversion leaves of the guidance (its report says how much); lower it towards 1 to stay nearer to the picture.")


def outlines(kit: Kit, positive, negative, image) -> list[Node]:
    """The picture's own edges guide every frame."""
    off = not kit.demo
    loader = kit.loader("ControlNetLoader", {"control_net_name": kit(files.CANNY, files.DEMO_OUTLINES)}, bypassed=off)
    edges = Node("Canny", {"image": image, "low_threshold": kit(0.2, 0.1), "high_threshold": kit(0.5, 0.2)}, bypassed=off)
    apply = Node("ControlNetApplyAdvanced", {"positive": positive, "negative": negative, "control_net": loader["CONTROL_NET"], "image": edges["IMAGE"],
                                             "strength": 0.6, "start_percent": 0.0, "end_percent": 0.6}, bypassed=off)
    return [edges, apply]


def alone(kit: Kit) -> Graph:
    return graph(kit, "Picture to video, moves where the prompt says (PiLife)", controlled=False, about=(
        "The picture is turned back into the noise it would be sampled from. Where the model looks for the prompt's motion words the frames get fresh noise, elsewhere the picture's own; "
        "all are sampled together while they look at each other."), change=[
        kit.change_picture,
        kit.change_prompt,
        "**words** in *Prompt*: your own motion words, with commas between, when the found ones do not suit you.",
        "**Where it moves**: look at the mask; replace it by a painted one if you like.",
        "**eta** in *Motion Noise*: higher holds the still parts more firmly.",
        "**start_timestep** in *Motion-Aware Inversion*: higher frees the clip more from the picture.",
    ])


def with_lora_and_controlnet(kit: Kit) -> Graph:
    kit.lora(kit("", files.DEMO_NIGHT), kit(0.8, 0.5), bypassed=not kit.demo)
    return graph(kit, "Picture to video with LoRA and ControlNet (PiLife)", controlled=True, about=(
        "PiLife as before. The LoRA stands right behind the checkpoint and the ControlNet right behind the prompts, so that inversion, map and sampler see the same model."
        + kit(" Both are bypassed: choose your files, then Ctrl-B on the purple nodes.", "")), change=[
        kit.change_picture,
        kit.change_prompt,
        "**lora_name** and **strength_model** in *Load LoRA*" + kit(": yours, in `models/loras`.", "."),
        "**strength** and **end_percent** of *Apply ControlNet*: lower lets shapes leave the picture's edges.",
        "**words** in *Prompt*, **eta** in *Motion Noise*, **start_timestep**: as in the template without them.",
    ])
