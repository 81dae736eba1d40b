"""What the graphs share, once for users (SD1.5, 512 px, or what a graph chooses) and once for the demo's own models (128 px, the twin)."""
from . import files
from .graph import Graph, Group, Node, Output

NEGATIVE = "blurry, distorted, low quality, watermark"
FPS = 8.0
WORLD = "In the demo world's words: a colour, a shape, a motion (moving right, left, up or down, growing, shrinking, spinning, standing still), a background."


class Kit:
    """kit(a, b): a for users, b for the demo. It gathers what goes into the group "Load": `model`, `clip` and `vae` are
    those behind the last loader."""

    def __init__(self, demo: bool):
        self.demo, self.size = demo, 128 if demo else 512
        checkpoint = Node("CheckpointLoaderSimple", {"ckpt_name": self(files.SD15, files.DEMO)})
        vae = Node("VAELoader", {"vae_name": files.DEMO_VAE}) if demo else checkpoint
        self.loaders = [checkpoint]
        self.last = [vae] if demo else []
        self.model, self.clip, self.vae, self.fps = checkpoint["MODEL"], checkpoint["CLIP"], vae["VAE"], FPS

    def __call__(self, user, demo):
        return demo if self.demo else user

    def choose(self, checkpoint: str, size: int) -> None:
        """For users, another checkpoint and the pixels of its pictures' sides."""
        self.loaders[0].inputs["ckpt_name"], self.size = self(checkpoint, files.DEMO), self(size, self.size)

    def parts(self, model: str, clip: str, kind: str, vae: str, fps: float) -> None:
        """A model that comes as three files, instead of a checkpoint; kind: of its text encoder, as Load CLIP calls it."""
        unet, text = Node("UNETLoader", {"unet_name": model}), Node("CLIPLoader", {"clip_name": clip, "type": kind})
        self.loaders, self.last = [unet, text], [Node("VAELoader", {"vae_name": vae})]
        self.model, self.clip, self.vae, self.fps = unet["MODEL"], text["CLIP"], self.last[0]["VAE"], fps

    def dynamicrafter(self, file: str, whole: bool) -> tuple[Node, Output]:
        """(the loader, CLIP_VISION). whole: the file holds text encoder and image tower, else they are files of their own."""
        load = Node("FF_DynamiCrafterLoader", {"dynamicrafter": file, "version": files.VERSIONS.get(file, "auto")})
        text, vision = (Node("CLIPLoader", {"clip_name": files.SD2_TEXT, "type": "stable_diffusion"}), Node("CLIPVisionLoader", {"clip_name": files.VISION})) if not whole else (None, None)
        self.loaders, self.last = [load], [text, vision] if text else []
        self.model, self.clip, self.vae = load["model"], text["CLIP"] if text else load["clip"], load["vae"]
        return load, vision["CLIP_VISION"] if vision else load["clip_vision"]

    @property
    def load(self) -> list:
        return [*self.loaders, *self.last]

    def loader(self, kind: str, inputs: dict, **rest) -> Node:
        self.loaders.append(Node(kind, inputs, **rest))
        return self.loaders[-1]

    def lora(self, file: str, strength: float = 1.0, bypassed: bool = False) -> None:
        node = self.loader("LoraLoader", {"model": self.model, "clip": self.clip, "lora_name": file, "strength_model": strength, "strength_clip": strength}, bypassed=bypassed)
        self.model, self.clip = node["MODEL"], node["CLIP"]

    def prompts(self, user: str, demo: str, negative: str = NEGATIVE) -> tuple[Node, Node]:
        return (Node("CLIPTextEncode", {"clip": self.clip, "text": self(user, demo)}, title="Prompt"),
                Node("CLIPTextEncode", {"clip": self.clip, "text": self(negative, "")}, title="Negative prompt"))

    def picture(self) -> tuple[Node, Node, Node]:
        """Load, scale, encode."""
        load = Node("LoadImage", {"image": "example.png"})
        scale = Node("ImageScale", {"image": load["IMAGE"], "upscale_method": "lanczos", "width": self.size, "height": self.size, "crop": "center"})
        return load, scale, Node("VAEEncode", {"pixels": scale["IMAGE"], "vae": self.vae})

    def decode(self, samples) -> Node:
        return Node("VAEDecode", {"samples": samples, "vae": self.vae})

    def graph(self, name: str, columns: list, images: Output, *, about: str, change: list[str], more: str = "") -> Graph:
        """columns: those between "Load" and "Save". The note: what it does, the files, what to change first, more."""
        columns = [[Group("Load", self.load)], *columns, [Group("Save", save(name, images, self.fps))]]
        found = filter(None, (files.file_of(node) for column in columns for group in column for node in group.nodes))
        whose = self("The VAE is the checkpoint's own." if self.vae.node is self.loaders[0] else "",
                     "These are the demo's own tiny models: they draw a shape or two on a background. `./scripts/demo` puts them in place.")
        note = [f"## {name}", about, "### Model files", "\n".join(file.line for file in found), whose,
                "### What to change first", "\n".join(f"{i}. {text}" for i, text in enumerate(change, 1)), more]
        return Graph(name, "\n\n".join(filter(None, note)), columns)

    @property
    def change_picture(self) -> str:
        return f"**Load Image**: your first frame. It is cut to {self.size} x {self.size}{', the size that SD1.5 knows best' if self.size == 512 else ''}."

    @property
    def change_prompt(self) -> str:
        return "**Prompt**: what is to be seen, and how it moves." + self("", " " + WORLD)


def save(name: str, images: Output, fps: float) -> list[Node]:
    prefix = f"FirstFrame/{name.split(' (')[0]}"
    video = Node("CreateVideo", {"images": images, "fps": fps})
    return [Node("SaveAnimatedWEBP", {"images": images, "filename_prefix": prefix, "fps": fps, "lossless": True}), video,
            Node("SaveVideo", {"video": video["VIDEO"], "filename_prefix": prefix, "format": "mp4", "codec": "h264"})]
