"""I2V-Zero, the baseline of the PiLife paper: a picture becomes a pan."""
from .graph import Graph, Group, Node
from .kit import Kit
from .pcfa import CIRCLE, FOX, NO_PHOTO


def pan(kit: Kit) -> Graph:
    prompts, (load, scale, encode) = kit.prompts(FOX, CIRCLE, NO_PHOTO), kit.picture()
    positive, negative = (prompt["CONDITIONING"] for prompt in prompts)
    zero = Node("FF_I2VZero", {"model": kit.model, "samples": encode["LATENT"], "positive": positive, "negative": negative, "frames": 8, "attention": "first",
                               "seed": 1, "motion_x": kit(12.0, -12.0), "motion_y": kit(12.0, 0.0)}, title="I2V-Zero")
    method = Node("KSamplerSelect", {"sampler_name": "ddim"})
    sample = Node("SamplerCustom", {"model": zero["model"], "positive": positive, "negative": negative, "sampler": method["SAMPLER"], "sigmas": zero["sigmas"],
                                    "latent_image": zero["latent"], "add_noise": False, "noise_seed": 1, "cfg": kit(7.5, 4.0)})
    decode = kit.decode(sample["output"])
    return kit.graph("Picture to video, a pan (I2V-Zero)", [
        [Group("Picture and prompt", [*prompts, load, scale, encode])],
        [Group("Method", [zero])],
        [Group("Sample", [method, sample, decode])],
    ], decode["IMAGE"], about="The picture is turned back into noise, the noise is shifted a little from frame to frame, and all frames look at the first one: a pan with fresh "
                              "detail.", change=[
        kit.change_picture,
        kit.change_prompt,
        "**motion_x, motion_y** in *I2V-Zero*: direction and speed; positive moves the content left and up.",
        "**attention** in *I2V-Zero*: *PCFA* for PiLife's.",
        "**frames** in *I2V-Zero*: 8 is the usual length.",
    ], more="Leave **add_noise** of *SamplerCustom* off: the latent holds its noise already.")
