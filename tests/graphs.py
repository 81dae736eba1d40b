"""API-format graphs of the demo world for tests on the real server. Import as `firstframe.tests.graphs`."""
import copy

CHECKPOINT, VAE, LORA, CONTROLNET, MOTION, PAN, I2V, CONTENT, VISION = (
    f"firstframe_demo{name}.safetensors" for name in ("", "_vae", "_night", "_outlines", "_motion", "_pan", "_i2v", "_content", "_vision"))
ADAPTER, REWARD, SPARSE, DYNAMI, VIDEO = (  # random weights, put there by the tests that use them
    f"firstframe_test_{name}.safetensors" for name in ("adapter", "reward", "sparse", "dynamicrafter", "videocrafter"))
FILES = {"CheckpointLoaderSimple": ("ckpt_name", CHECKPOINT), "LoraLoader": ("lora_name", LORA), "ControlNetLoader": ("control_net_name", CONTROLNET),
         "FF_MotionModuleLoader": ("motion_module", MOTION), "FF_MotionLoraLoader": ("lora", PAN), "FF_I2VAdapterLoader": ("i2v_adapter", I2V),
         "FF_ContentAdapterLoader": ("content_adapter", CONTENT), "CLIPVisionLoader": ("clip_name", VISION), "LoadVideo": ("file", "example_outlines.mp4"),
         "FF_RewardModelLoader": ("reward_model", REWARD), "FF_SparseCtrlLoader": ("sparse_ctrl", SPARSE), "FF_DynamiCrafterLoader": ("dynamicrafter", DYNAMI)}  # their widgets
PROMPT = "a red circle on a blue background"

LOADERS = {
    "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
    "vae": {"class_type": "VAELoader", "inputs": {"vae_name": VAE}},
    "positive": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": PROMPT}},
    "negative": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": ""}},
}


def decode(latent: list, prefix: str = "test") -> dict:
    return {
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": latent, "vae": ["vae", 0]}},
        "save": {"class_type": "SaveAnimatedWEBP", "inputs": {"images": ["decode", 0], "filename_prefix": prefix, "fps": 8.0, "lossless": True, "quality": 80, "method": "fastest"}},
    }


def plain(frames: int = 3, steps: int = 2, seed: int = 4) -> dict:
    """Text to pictures, nothing of ours in it."""
    return copy.deepcopy({
        **LOADERS,
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": frames}},
        "sample": {"class_type": "KSampler", "inputs": {
            "model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0],
            "seed": seed, "steps": steps, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}},
        **decode(["sample", 0]),
    })


def motion(module: str, frames: int = 4, lora: str | None = None, strength: float = 1.0, **rest) -> dict:
    """Text to video with a motion module of models/animatediff_models."""
    graph = plain(frames, **rest)
    graph["module"] = {"class_type": "FF_MotionModuleLoader", "inputs": {"motion_module": module}}
    if lora:
        graph["motion_lora"] = {"class_type": "FF_MotionLoraLoader", "inputs": {"motion_module": ["module", 0], "lora": lora, "strength": 1.0}}
    graph["motion"] = {"class_type": "FF_MotionModuleApply", "inputs": {
        "model": ["model", 0], "motion_module": ["motion_lora" if lora else "module", 0], "strength": strength, "start_percent": 0.0, "end_percent": 1.0}}
    graph["sample"]["inputs"]["model"] = ["motion", 0]
    return graph


def i2v_adapter(picture: str, adapter: str, frames: int = 3, strength: float = 1.0, **rest) -> dict:
    """A picture and a motion module, with an I2V-Adapter of models/i2v_adapter."""
    graph = motion(MOTION, frames, **rest)
    graph["picture"] = {"class_type": "LoadImage", "inputs": {"image": picture}}
    graph["encode"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["picture", 0], "vae": ["vae", 0]}}
    graph["adapter"] = {"class_type": "FF_I2VAdapterLoader", "inputs": {"i2v_adapter": adapter}}
    graph["i2v"] = {"class_type": "I2VAdapterApply", "inputs": {"model": ["motion", 0], "i2v_adapter": ["adapter", 0], "first_frame": ["encode", 0], "strength": strength,
                                                               "start_percent": 0.0, "end_percent": 1.0}}
    graph["sample"]["inputs"]["model"] = ["i2v", 0]
    return graph


def in_windows(graph: dict, length: int = 16, overlap: int = 4, **windows) -> dict:
    """The graph, sampled in the host's context windows with its own defaults."""
    windows = dict(context_length=length, context_overlap=overlap, context_schedule="standard_static", context_stride=1, closed_loop=False, fuse_method="pyramid", dim=0,
                   freenoise=False, cond_retain_index_list="", split_conds_to_windows=False, latent_retain_index_list="", causal_window_fix=True) | windows
    graph["windows"] = {"class_type": "ContextWindowsManual", "inputs": {"model": graph["sample"]["inputs"]["model"], **windows}}
    graph["sample"]["inputs"]["model"] = ["windows", 0]
    return graph


def content_adapter(picture: str, frames: int = 3, weight: float = 1.0, hidden_size: int = 32, **rest) -> dict:
    """Text to pictures that look like a given one, with the small CLIP of tests/hostile/source_nodes."""
    graph = plain(frames, **rest)
    graph["picture"] = {"class_type": "LoadImage", "inputs": {"image": picture}}
    graph["clip vision"] = {"class_type": "SmallClipVision", "inputs": {"hidden_size": hidden_size}}
    graph["adapter"] = {"class_type": "FF_ContentAdapterLoader", "inputs": {"content_adapter": ADAPTER}}
    graph["content"] = {"class_type": "FF_ContentAdapterApply", "inputs": {
        "model": ["model", 0], "content_adapter": ["adapter", 0], "clip_vision": ["clip vision", 0], "image": ["picture", 0], "weight": weight, "start_percent": 0.0, "end_percent": 1.0}}
    graph["sample"]["inputs"]["model"] = ["content", 0]
    return graph


def clip_score() -> dict:
    """The demo's pair as a reward model: its checkpoint's CLIP with the projection that a LoRA brings, and its image tower."""
    return {"model": dict(LOADERS["model"]), "projection": {"class_type": "LoraLoader", "inputs": {
                "model": ["model", 0], "clip": ["model", 1], "lora_name": "firstframe_demo_text_projection.safetensors", "strength_model": 1.0, "strength_clip": 1.0}},
            "clip vision": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": VISION}},
            "reward": {"class_type": "FF_CLIPScore", "inputs": {"clip": ["projection", 1], "clip_vision": ["clip vision", 0]}}}


def selected(candidates: int = 4, **select) -> dict:
    """Candidates by SamplerCustomAdvanced, and the one that CLIPScore likes best."""
    graph = plain(candidates) | clip_score()
    graph["random"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}
    graph["guider"] = {"class_type": "CFGGuider", "inputs": {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "cfg": 4.0}}
    graph["sigmas"] = {"class_type": "BasicScheduler", "inputs": {"model": ["model", 0], "scheduler": "normal", "steps": 6, "denoise": 1.0}}
    graph["euler"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}}
    graph["sample"] = {"class_type": "SamplerCustomAdvanced", "inputs": {
        "noise": ["random", 0], "guider": ["guider", 0], "sampler": ["euler", 0], "sigmas": ["sigmas", 0], "latent_image": ["latent", 0]}}
    graph["select"] = {"class_type": "AnchorImageSelect", "inputs": {
        "images": ["decode", 0], "reward_model": ["reward", 0], "prompt": PROMPT, "samples": ["sample", 0], "top_k": 2, **select}}
    return graph


def searched(candidates: int = 4, **search) -> dict:
    """The same search in one node."""
    graph = selected(candidates)
    samples = graph.pop("sample")["inputs"]
    del graph["select"], graph["decode"], graph["save"]
    graph["search"] = {"class_type": "FF_AnchorImageSearch", "inputs": {
        **samples, "vae": ["vae", 0], "reward_model": ["reward", 0], "prompt": PROMPT, "halve_after": "2, 4", "drop": 0.5, "draft_steps": 0, **search}}
    return graph


def sparse_ctrl(picture: str, file: str = SPARSE, frames: int = 3, vae: bool = True, **inputs) -> dict:
    """A motion module, and a picture for the last frame through a SparseCtrl of models/controlnet; inputs: of Apply SparseCtrl."""
    graph = motion(MOTION, frames)
    graph["picture"] = {"class_type": "LoadImage", "inputs": {"image": picture}}
    graph["sparse"] = {"class_type": "FF_SparseCtrlLoader", "inputs": {"sparse_ctrl": file}}
    graph["control"] = {"class_type": "FF_SparseCtrlApply", "inputs": {
        "positive": ["positive", 0], "negative": ["negative", 0], "control_net": ["sparse", 0], "image": ["picture", 0], "frame_numbers": "-1", "strength": 1.0,
        "start_percent": 0.0, "end_percent": 1.0, **({"vae": ["vae", 0]} if vae else {}), **inputs}}
    graph["sample"]["inputs"] |= {"positive": ["control", 0], "negative": ["control", 1]}
    return graph


def dynamicrafter(picture: str, file: str = DYNAMI, frames: int = 3, size: int = 64, **inputs) -> dict:
    """A picture through DynamiCrafter, with the demo's text encoder, VAE and image tower; inputs: of its conditioning."""
    graph = plain(frames)
    graph["picture"] = {"class_type": "LoadImage", "inputs": {"image": picture}}
    graph["vision"] = {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": VISION}}
    graph["dynami"] = {"class_type": "FF_DynamiCrafterLoader", "inputs": {"dynamicrafter": file, "version": "auto"}}
    graph["condition"] = {"class_type": "FF_DynamiCrafterConditioning", "inputs": {
        "positive": ["positive", 0], "negative": ["negative", 0], "image_projector": ["dynami", 4], "clip_vision": ["vision", 0], "vae": ["vae", 0], "image": ["picture", 0],
        "width": size, "height": size, "frames": frames, "fps": 0, **inputs}}
    del graph["latent"]
    graph["sample"]["inputs"] |= {"model": ["dynami", 0], "positive": ["condition", 0], "negative": ["condition", 1], "latent_image": ["condition", 2]}
    return graph


def pcfa(picture: str, frames: int = 3, **rest) -> dict:
    """A picture as the first frame, PCFAPatch on the model."""
    graph = plain(frames, **rest)
    graph["picture"] = {"class_type": "LoadImage", "inputs": {"image": picture}}
    graph["encode"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["picture", 0], "vae": ["vae", 0]}}
    graph["latent"] = {"class_type": "FF_PictureToFrames", "inputs": {"samples": ["encode", 0], "frames": frames, "keep_first": True}}
    graph["patch"] = {"class_type": "PCFAPatch", "inputs": {"model": ["model", 0], "p": 0.5, "seed": 0, "start_percent": 0.0, "end_percent": 1.0}}
    graph["sample"]["inputs"] |= {"model": ["patch", 0], "denoise": 0.75}
    return graph


def similar(picture: str, frames: int = 3, **prior) -> dict:
    """A picture, Frame Similarity Prior and KSampler with its denoise; prior: inputs of that node, scheduler and steps also of KSampler."""
    graph = pcfa(picture, frames)
    del graph["latent"], graph["patch"]
    graph["prior"] = {"class_type": "FrameSimilarityPrior", "inputs": {
        "model": ["model", 0], "samples": ["encode", 0], "frames": frames, "p": 0.5, "t0": 0.8, "seed": 0, "scheduler": "normal", "steps": 4, "keep_first": True,
        "preset": "own values", **prior}}
    graph["sample"]["inputs"] |= {"model": ["model", 0], "latent_image": ["prior", 0], "denoise": ["prior", 2], **{k: graph["prior"]["inputs"][k] for k in ("scheduler", "steps")}}
    return graph


def ni_vsds(picture: str, frames: int = 3, steps: int = 4, **course) -> dict:
    """A picture brought to life through SamplerCustomAdvanced; course: inputs of NIVSDS."""
    graph = pcfa(picture, frames)
    del graph["patch"]
    graph["latent"]["inputs"]["keep_first"] = False
    graph["vsds"] = {"class_type": "NIVSDS", "inputs": {"preset": "own values", "tau": 0.4, "step_sizes": "3, 1", **course}}
    graph["random"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}
    graph["guider"] = {"class_type": "CFGGuider", "inputs": {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "cfg": 4.0}}
    graph["sigmas"] = {"class_type": "BasicScheduler", "inputs": {"model": ["model", 0], "scheduler": "normal", "steps": steps, "denoise": 1.0}}
    graph["sample"] = {"class_type": "SamplerCustomAdvanced", "inputs": {
        "noise": ["random", 0], "guider": ["guider", 0], "sampler": ["vsds", 0], "sigmas": ["sigmas", 0], "latent_image": ["latent", 0]}}
    return graph


def animated(picture: str, frames: int = 3, steps: int = 4, **course) -> dict:
    """The same in one node."""
    graph = ni_vsds(picture, frames)
    for name in ("latent", "vsds", "random", "guider", "sigmas"):
        del graph[name]
    graph["sample"] = {"class_type": "FF_AnimateAnchor", "inputs": {
        "model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "samples": ["encode", 0], "frames": frames, "seed": 5, "steps": steps, "cfg": 4.0,
        "scheduler": "normal", "preset": "own values", "tau": 0.4, "step_sizes": "3, 1", **course}}
    return graph


def i2v_zero(picture: str, frames: int = 3, steps: int = 10) -> dict:
    """The baseline of the PiLife paper."""
    graph = pcfa(picture, frames)
    del graph["patch"], graph["latent"]
    graph["zero"] = {"class_type": "FF_I2VZero", "inputs": {
        "model": ["model", 0], "samples": ["encode", 0], "positive": ["positive", 0], "negative": ["negative", 0], "frames": frames,
        "attention": "first", "p": 0.5, "seed": 0, "motion_x": 12.0, "motion_y": 12.0, "steps": steps}}
    graph["euler"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}}
    graph["sample"] = {"class_type": "SamplerCustom", "inputs": {
        "model": ["zero", 0], "add_noise": False, "noise_seed": 0, "cfg": 4.0, "positive": ["positive", 0], "negative": ["negative", 0],
        "sampler": ["euler", 0], "sigmas": ["zero", 2], "latent_image": ["zero", 1]}}
    return graph


def pilife(picture: str, frames: int = 3, steps: int = 8, mode: str = "conditional") -> dict:
    """Inversion, motion noise, clipper and PCFA, sampled with the host's custom sampler."""
    graph = pcfa(picture, frames)
    graph["invert"] = {"class_type": "MotionAwareInversion", "inputs": {
        "model": ["model", 0], "samples": ["encode", 0], "positive": ["positive", 0], "negative": ["negative", 0], "mode": mode,
        "steps": steps, "start_timestep": 761, "guidance": 4.0, "inner_steps": 3}}
    graph["init"] = {"class_type": "MotionNoiseInit", "inputs": {"inversion": ["invert", 1], "samples": ["latent", 0], "eta": 1.0, "seed": 1}}
    graph["clip"] = {"class_type": "NoiseClipper", "inputs": {"noise": ["init", 0], "inversion": ["invert", 1], "samples": ["latent", 0], "margin": 0.1, "seed": 2}}
    graph["latent"]["inputs"] |= {"samples": ["invert", 0], "keep_first": False}
    graph["guider"] = {"class_type": "CFGGuider", "inputs": {"model": ["patch", 0], "positive": ["positive", 0], "negative": ["invert", 2], "cfg": 4.0}}
    graph["euler"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}}
    graph["sample"] = {"class_type": "SamplerCustomAdvanced", "inputs": {
        "noise": ["clip", 0], "guider": ["guider", 0], "sampler": ["euler", 0], "sigmas": ["invert", 3], "latent_image": ["latent", 0]}}
    return graph


def with_lora_and_controlnet(graph: dict) -> dict:
    """The same graph with the demo's LoRA behind the checkpoint and its ControlNet, on the picture's edges, behind the prompts."""
    later = {"model": {0: "lora", 1: "lora"}, "positive": {0: "control"}, "negative": {0: "control"}}
    for node in graph.values():
        node["inputs"] = {k: [later[v[0]][v[1]], v[1] + (v[0] == "negative")] if isinstance(v, list) and v[1] in later.get(v[0], {}) else v for k, v in node["inputs"].items()}
    return graph | {
        "lora": {"class_type": "LoraLoader", "inputs": {"model": ["model", 0], "clip": ["model", 1], "lora_name": LORA, "strength_model": 0.8, "strength_clip": 0.8}},
        "load": {"class_type": "ControlNetLoader", "inputs": {"control_net_name": CONTROLNET}},
        "edges": {"class_type": "Canny", "inputs": {"image": ["picture", 0], "low_threshold": 0.1, "high_threshold": 0.2}},
        "control": {"class_type": "ControlNetApplyAdvanced", "inputs": {
            "positive": ["positive", 0], "negative": ["negative", 0], "control_net": ["load", 0], "image": ["edges", 0],
            "strength": 0.8, "start_percent": 0.0, "end_percent": 1.0}},
    }
