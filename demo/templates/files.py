"""The model files that templates name: which loader reads them, in which folder they lie, where their publisher offers them."""
from dataclasses import dataclass

# loader: (its widget, its folder under models/)
LOADERS = {"CheckpointLoaderSimple": ("ckpt_name", "checkpoints"), "VAELoader": ("vae_name", "vae"), "LoraLoader": ("lora_name", "loras"),
           "ControlNetLoader": ("control_net_name", "controlnet"), "FF_MotionModuleLoader": ("motion_module", "animatediff_models"),
           "FF_MotionLoraLoader": ("lora", "animatediff_motion_lora"), "FF_I2VAdapterLoader": ("i2v_adapter", "i2v_adapter"),
           "FF_ContentAdapterLoader": ("content_adapter", "ipadapter"), "CLIPVisionLoader": ("clip_name", "clip_vision"),
           "FF_RewardModelLoader": ("reward_model", "reward_models"), "FF_SparseCtrlLoader": ("sparse_ctrl", "controlnet"),
           "UNETLoader": ("unet_name", "diffusion_models"), "CLIPLoader": ("clip_name", "text_encoders"), "FF_DynamiCrafterLoader": ("dynamicrafter", "checkpoints")}

SD15, SDXL = "v1-5-pruned-emaonly-fp16.safetensors", "sd_xl_base_1.0.safetensors"
MODULE_V3, ADAPTER_V3 = "v3_sd15_mm.ckpt", "v3_sd15_adapter.ckpt"
MODULE_V2, PAN_LEFT = "mm_sd_v15_v2.ckpt", "v2_lora_PanLeft.ckpt"
MODULE_V1, MODULE_XL = "mm_sd_v15.ckpt", "mm_sdxl_v10_beta.ckpt"
I2V, CONTENT, CONTENT_XL, VISION = "i2v_module.pth", "ip-adapter-plus_sd15.safetensors", "ip-adapter-plus_sdxl_vit-h.safetensors", "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
REWARD, SPARSE = "ImageReward.pt", "v3_sd15_sparsectrl_rgb.ckpt"
WAN, WAN_TEXT, WAN_VAE = "wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"
DC_512, DC_1024, DC_INTERP = "dynamicrafter_512_v1.ckpt", "dynamicrafter_1024_v1_bf16.safetensors", "dynamicrafter_512_interp_v1_bf16.safetensors"
VC_2 = "videocrafter2_512.ckpt"
VERSIONS = {DC_1024: "1024", DC_INTERP: "512 interpolation"}  # what the file may not say
SD2_TEXT = "stable-diffusion-2-1-clip-fp16.safetensors"
CANNY, POSES = "control_v11p_sd15_canny_fp16.safetensors", "control_v11p_sd15_openpose_fp16.safetensors"
DEMO, DEMO_VAE, DEMO_MOTION, DEMO_WORDS, DEMO_PAN, DEMO_NIGHT, DEMO_OUTLINES, DEMO_I2V, DEMO_CONTENT, DEMO_VISION, DEMO_PROJECTION = IN_DEMO = tuple(
    f"firstframe_demo{name}.safetensors" for name in ("", "_vae", "_motion", "_motion_words", "_pan", "_night", "_outlines", "_i2v", "_content", "_vision", "_text_projection"))

ANIMATEDIFF = "https://huggingface.co/guoyww/animatediff/resolve/main/"
CONTROLNETS = "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
WAN_PARTS = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/"
IP_ADAPTER = "https://huggingface.co/h94/IP-Adapter/resolve/main/"
URLS = {
    SD15: "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/" + SD15,
    SDXL: "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/" + SDXL,
    I2V: "https://huggingface.co/space-xun/i2v_adapter/resolve/main/" + I2V,
    CONTENT: IP_ADAPTER + "models/" + CONTENT, CONTENT_XL: IP_ADAPTER + "sdxl_models/" + CONTENT_XL,
    REWARD: "https://huggingface.co/THUDM/ImageReward/resolve/main/" + REWARD,
    **{file: "https://huggingface.co/Kijai/DynamiCrafter_pruned/resolve/main/" + file for file in (DC_1024, DC_INTERP)},
    **{file: CONTROLNETS + file for file in (CANNY, POSES)},
    **{file: ANIMATEDIFF + file for file in (MODULE_V3, ADAPTER_V3, MODULE_V2, PAN_LEFT, MODULE_V1, MODULE_XL, SPARSE)},
    **{file: f"{WAN_PARTS}{folder}/{file}" for file, folder in ((WAN, "diffusion_models"), (WAN_TEXT, "text_encoders"), (WAN_VAE, "vae"))},
}
WITHOUT_ADDRESS = (*IN_DEMO, VISION, DC_512, VC_2, SD2_TEXT)  # they lie in demo/weights; their publishers call them otherwise

REMARKS = {
    SD15: "any other SD1.5 checkpoint will do",
    SDXL: "any other SDXL checkpoint will do",
    MODULE_V1: "the I2V-Adapter was trained with v1",
    VISION: f"`models/image_encoder/model.safetensors` of [h94/IP-Adapter]({IP_ADAPTER.removesuffix('/resolve/main/')}), under this name",
    REWARD: "with `vocab.txt` of [bert-base-uncased](https://huggingface.co/google-bert/bert-base-uncased) beside it",
    SPARSE: "trained with v3",
    DC_512: "`model.ckpt` of [Doubiiu/DynamiCrafter_512](https://huggingface.co/Doubiiu/DynamiCrafter_512), under this name; it holds all parts",
    VC_2: "`model.ckpt` of [VideoCrafter/VideoCrafter2](https://huggingface.co/VideoCrafter/VideoCrafter2), under this name; it holds all parts",
    SD2_TEXT: "SD2.1's `text_encoder/model.fp16.safetensors` under this name, or the CLIP of an SD2.1 checkpoint",
    WAN: "or another text to video model of Wan",
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
