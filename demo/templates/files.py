"""The model files that templates name: which loader reads them, in which folder they lie, where their publisher offers them."""
from dataclasses import dataclass

# loader: (its widget, its folder under models/)
LOADERS = {"CheckpointLoaderSimple": ("ckpt_name", "checkpoints"), "VAELoader": ("vae_name", "vae"), "LoraLoader": ("lora_name", "loras"),
           "ControlNetLoader": ("control_net_name", "controlnet"), "FF_MotionModuleLoader": ("motion_module", "animatediff_models"),
           "FF_MotionLoraLoader": ("lora", "animatediff_motion_lora")}

SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
MODULE_V3, ADAPTER_V3 = "v3_sd15_mm.ckpt", "v3_sd15_adapter.ckpt"
MODULE_V2, PAN_LEFT = "mm_sd_v15_v2.ckpt", "v2_lora_PanLeft.ckpt"
CANNY = "control_v11p_sd15_canny_fp16.safetensors"
DEMO, DEMO_VAE, DEMO_MOTION, DEMO_WORDS, DEMO_PAN, DEMO_NIGHT, DEMO_OUTLINES = (
    f"firstframe_demo{name}.safetensors" for name in ("", "_vae", "_motion", "_motion_words", "_pan", "_night", "_outlines"))

ANIMATEDIFF = "https://huggingface.co/guoyww/animatediff/resolve/main/"
URLS = {
    SD15: "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/" + SD15,
    CANNY: "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/" + CANNY,
    **{file: ANIMATEDIFF + file for file in (MODULE_V3, ADAPTER_V3, MODULE_V2, PAN_LEFT)},
}
WITHOUT_ADDRESS = (DEMO, DEMO_VAE, DEMO_MOTION, DEMO_WORDS, DEMO_PAN, DEMO_NIGHT, DEMO_OUTLINES)  # they lie in demo/weights

REMARKS = {
    SD15: "any other SD1.5 checkpoint will do",
    MODULE_V3: "or v1, v2",
    ADAPTER_V3: "v3's domain adapter; with another motion module bypass *Load LoRA*",
    MODULE_V2: "the motion LoRAs were trained on v2",
    DEMO_WORDS: "trained with the motion module; the image model alone does not hear words for movement",
}


@dataclass(frozen=True)
class File:
    name: str
    folder: str

    @property
    def line(self) -> str:
        """Its line in the note."""
        remark = REMARKS.get(self.name)
        return f"- `{self.name}` in `models/{self.folder}`" + (f": {remark}" if remark else "")

    @property
    def metadata(self) -> dict | None:
        """What lets the page offer the download; None without a public address."""
        return {"name": self.name, "url": URLS[self.name], "directory": self.folder} if self.name in URLS else None


def file_of(node) -> File | None:
    """The file that a loader names; None for other nodes, and for loaders that leave the choice to the user."""
    widget, folder = LOADERS.get(node.kind, ("", ""))
    name = node.values.get(widget)
    return File(name, folder) if name else None
