"""For every node of the pack a good small graph that contains it, each of its wires connected. Import as `firstframe.tests.hostile.bases`.

A new node needs an entry in `bases`; test_inputs fails without.
"""
import copy

from firstframe.tests import graphs

FRAMES = 3
MASK = {"class_type": "SolidMask", "inputs": {"value": 0.5, "width": 64, "height": 64}}
WORDS = {"class_type": "FF_MotionTokens", "inputs": {"clip": ["model", 1], "text": graphs.PROMPT, "words": "circle"}}


def ends(graph: dict, *latents: str) -> dict:
    """The graph with the latents of those nodes as its only results."""
    rest = {k: v for k, v in graph.items() if k not in ("decode", "save")}
    return rest | {f"save {name}": {"class_type": "SaveLatent", "inputs": {"samples": link, "filename_prefix": "hostile"}} for name, link in ((n, [n, 0]) for n in latents)}


def looked_at(graph: dict, node: str) -> dict:
    """The graph with the first output of that node as its only result, as text."""
    return {k: v for k, v in graph.items() if k not in ("decode", "save")} | {"see": {"class_type": "PreviewAny", "inputs": {"source": [node, 0]}}}


def needed(graph: dict) -> dict:
    """Without what no result asks for."""
    def reach(name):
        yield name
        for value in graph[name]["inputs"].values():
            if isinstance(value, list):
                yield from reach(value[0])
    return {k: copy.deepcopy(graph[k]) for k in dict.fromkeys(n for end in graph if graph[end]["class_type"] in ("SaveLatent", "PreviewAny") for n in reach(end))}


def noise(picture: str) -> dict:
    graph = graphs.pilife(picture, FRAMES, steps=4, mode="none")
    graph["mask"], graph["random"] = MASK, {"class_type": "RandomNoise", "inputs": {"noise_seed": 1}}
    graph["init"]["inputs"] |= {"motion": ["mask", 0], "base": ["random", 0]}
    return ends(graph, "sample")


def inversion(picture: str) -> dict:
    graph = graphs.pilife(picture, FRAMES, steps=2, mode="null-text")
    graph["invert"]["inputs"] |= {"negative": ["negative", 0], "vae": ["vae", 0], "inner_steps": 1}
    return ends(graph, "invert")


def attention_map(picture: str) -> dict:
    graph = graphs.pcfa(picture, FRAMES) | {"words": WORDS}
    graph["map"] = {"class_type": "FF_MotionAttentionMap", "inputs": {
        "model": ["model", 0], "samples": ["encode", 0], "positive": ["words", 0], "motion_tokens": ["words", 1], "start_timestep": 761, "end_timestep": 401,
        "count": 2, "seed": 0, "smoothing": 0.0, "gamma": 1.0, "threshold": 0.0}}
    return looked_at(graph, "map")


def motion() -> dict:
    graph = graphs.motion(graphs.MOTION, FRAMES, lora=graphs.PAN, steps=1)
    graph["latent"]["inputs"] |= {"width": 64, "height": 64}
    graph["mask"] = MASK
    graph["motion"]["inputs"]["mask"] = ["mask", 0]
    return ends(graph, "sample")


def i2v(picture: str) -> dict:
    graph = graphs.i2v_adapter(picture, "random.safetensors", FRAMES, steps=1)
    graph["latent"]["inputs"] |= {"width": 64, "height": 64}
    return ends(graph, "sample")


def colors(picture: str) -> dict:
    graph = graphs.similar(picture, FRAMES, steps=1)
    graph["match"] = {"class_type": "FF_MatchFrameColors", "inputs": {"images": ["decode", 0], "strength": 1.0}}
    return {k: v for k, v in graph.items() if k != "save"} | {"see": {"class_type": "PreviewAny", "inputs": {"source": ["match", 0]}}}


def content(picture: str) -> dict:
    graph = graphs.content_adapter(picture, FRAMES, steps=1)
    graph["latent"]["inputs"] |= {"width": 64, "height": 64}
    graph["mask"] = MASK
    graph["content"]["inputs"] |= {"mask": ["mask", 0], "weights_per_frame": "1, 0.5, 0.25"}
    return ends(graph, "sample")


def candidates(graph: dict, end: list) -> dict:
    """The graph with small pictures and the latent at `end` as its only result."""
    graph["latent"]["inputs"] |= {"width": 64, "height": 64}
    graph["sigmas"]["inputs"]["steps"] = 3
    return {k: v for k, v in graph.items() if k != "save"} | {"save best": {"class_type": "SaveLatent", "inputs": {"samples": end, "filename_prefix": "hostile"}}}


def sparse(picture: str) -> dict:
    graph = graphs.sparse_ctrl(picture, frames=FRAMES)
    graph["latent"]["inputs"] |= {"width": 64, "height": 64}
    graph["sample"]["inputs"]["steps"] = 1
    return ends(graph, "sample")


def plain() -> dict:
    graph = graphs.plain(FRAMES, steps=1)
    graph["latent"]["inputs"] |= {"width": 64, "height": 64}
    return ends(graph, "sample")


def crafter(picture: str) -> dict:
    graph = graphs.dynamicrafter(picture, frames=FRAMES, end_image=["picture", 0], loop=False)
    graph["mask"] = MASK
    graph["weight"] = {"class_type": "FF_DualCrossAttentionPatch", "inputs": {
        "model": ["dynami", 0], "weight": 0.5, "start_percent": 0.0, "end_percent": 1.0, "mask": ["mask", 0], "frames": 0}}
    graph["embed"] = {"class_type": "FF_TextAlignedImageEmbedding", "inputs": {
        "positive": ["condition", 0], "negative": ["condition", 1], "image_projector": ["dynami", 4], "clip_vision": ["vision", 0], "image": ["picture", 0]}}
    graph["random"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}
    graph["guider"] = {"class_type": "FF_MultiConditionGuider", "inputs": {
        "model": ["weight", 0], "positive": ["embed", 0], "negative": ["embed", 1], "text_cfg": 7.5, "image_cfg": 3.0, "guidance_rescale": 0.7}}
    graph["method"] = {"class_type": "FF_DynamiCrafterSampler", "inputs": {"eta": 1.0, "end_as_published": True}}
    graph["sigmas"] = {"class_type": "BasicScheduler", "inputs": {"model": ["dynami", 0], "scheduler": "simple", "steps": 2, "denoise": 1.0}}
    graph["sample"] = {"class_type": "SamplerCustomAdvanced", "inputs": {
        "noise": ["random", 0], "guider": ["guider", 0], "sampler": ["method", 0], "sigmas": ["sigmas", 0], "latent_image": ["condition", 2]}}
    return ends(graph, "sample")


def from_text() -> dict:
    graph = plain()
    graph["dynami"] = {"class_type": "FF_DynamiCrafterLoader", "inputs": {"dynamicrafter": graphs.VIDEO, "version": "auto"}}
    graph["condition"] = {"class_type": "FF_VideoCrafterConditioning", "inputs": {
        "model": ["dynami", 0], "positive": ["positive", 0], "negative": ["negative", 0], "width": 64, "height": 64, "frames": FRAMES, "fps": 28}}
    graph["sample"]["inputs"] |= {"model": ["dynami", 0], "positive": ["condition", 0], "negative": ["condition", 1], "latent_image": ["condition", 2]}
    return ends(graph, "sample")


def bases(picture: str) -> dict[str, tuple[dict, str]]:
    """{node id: (graph, the node's key in it)}. picture: of 64x64 pixels, in the host's input folder."""
    pcfa, video = graphs.pcfa(picture, FRAMES, steps=1), motion()
    found = {
        "FF_PictureToFrames": (ends(pcfa, "latent"), "latent"),
        "PCFAPatch": (ends(pcfa, "sample"), "patch"),
        "FF_I2VZero": (ends(graphs.i2v_zero(picture, FRAMES, steps=4), "sample"), "zero"),
        "MotionAwareInversion": (inversion(picture), "invert"),
        "MotionNoiseInit": (noise(picture), "init"),
        "NoiseClipper": (noise(picture), "clip"),
        "FF_MotionTokens": (looked_at(graphs.plain() | {"words": WORDS}, "words"), "words"),
        "FF_MotionAttentionMap": (attention_map(picture), "map"),
        "FF_MotionModuleLoader": (video, "module"),
        "FF_MotionLoraLoader": (video, "motion_lora"),
        "FF_MotionModuleApply": (video, "motion"),
        "FF_I2VAdapterLoader": (i2v(picture), "adapter"),
        "I2VAdapterApply": (i2v(picture), "i2v"),
        "FrameSimilarityPrior": (ends(graphs.similar(picture, FRAMES, steps=1), "sample"), "prior"),
        "FF_MatchFrameColors": (colors(picture), "match"),
        "AnchorImageSelect": (candidates(graphs.selected(FRAMES), ["select", 1]), "select"),
        "FF_AnchorImageSearch": (candidates(graphs.searched(FRAMES, halve_after="1", draft_steps=2, finalists=2), ["search", 1]), "search"),
        "NIVSDS": (ends(graphs.ni_vsds(picture, FRAMES, steps=3), "sample"), "vsds"),
        "FF_AnimateAnchor": (ends(graphs.animated(picture, FRAMES, steps=3), "sample"), "sample"),
        "FF_ContentAdapterLoader": (content(picture), "adapter"),
        "FF_ContentAdapterApply": (content(picture), "content"),
        "FF_DynamiCrafterLoader": (crafter(picture), "dynami"),
        "FF_DynamiCrafterConditioning": (crafter(picture), "condition"),
        "FF_VideoCrafterConditioning": (from_text(), "condition"),
        "FF_TextAlignedImageEmbedding": (crafter(picture), "embed"),
        "FF_DualCrossAttentionPatch": (crafter(picture), "weight"),
        "FF_SparseCtrlLoader": (sparse(picture), "sparse"),
        "FF_SparseCtrlApply": (sparse(picture), "control"),
        "FF_RewardModelLoader": (looked_at({"reward": {"class_type": "FF_RewardModelLoader", "inputs": {"reward_model": graphs.REWARD}}}, "reward"), "reward"),
        "FF_DynamiCrafterSampler": (crafter(picture), "method"),
        "FF_MultiConditionGuider": (crafter(picture), "guider"),
        "FF_CLIPScore": (looked_at(graphs.clip_score(), "reward"), "reward"),
    }
    return {node: (needed(graph), key) for node, (graph, key) in found.items()}
