"""Multi-condition classifier-free guidance and guidance rescale (DynamiCrafter, Xing et al. 2023, and its published code; rescale: Lin et al. 2024, Eq. 15 and 16).

    D = D(no text, no picture) + s_img (D(no text, picture) - D(no text, no picture)) + s_txt (D(text, picture) - D(no text, picture))

That is the ordinary guidance by s_txt against a mixture of the two unconditional predictions,

    D(no text, no picture) + w (D(no text, picture) - D(no text, no picture)),        w = (s_txt - s_img) / (s_txt - 1)

so that whatever hangs on the host's guidance gets what it expects. Published for the network's output (noise, velocity); as D is linear in that, it is the same here.
Shapes: x, D [F,C,h,w] with the frames of one clip along the batch, or [B,C,F,h,w].
"""
import torch
from comfy.samplers import CFGGuider, calc_cond_batch, sampling_function
from node_helpers import conditioning_set_values

from ..networks.lvdm_model import IMAGE_TOKENS

WHO = "Multi-Condition Guider"
NO_TEXT = "picture without text"


def picture_without_text(positive: list, negative: list) -> list:
    """CONDITIONING: the text of `negative` with the image tokens of `positive`. Raises ValueError where these are missing or do not differ."""
    tokens = {"positive": [options.get(IMAGE_TOKENS) for _, options in positive], "negative": [options.get(IMAGE_TOKENS) for _, options in negative]}
    for name, found in tokens.items():
        if any(t is None for t in found):
            raise ValueError(f"{WHO} needs a picture's tokens in {name!r}, and there are none. Connect the {name} output of DynamiCrafter Conditioning, not CLIP Text Encode.")
    picture = tokens["positive"][0]
    if not all(torch.equal(t, picture) for t in tokens["positive"]):
        raise ValueError(f"{WHO} got the tokens of several pictures in 'positive' and needs those of one. Combine prompts for one picture only.")
    if any(torch.equal(t, picture) for t in tokens["negative"]):
        raise ValueError(f"{WHO} got the same picture in 'positive' and 'negative', so that image_cfg would do nothing. Connect the negative output of DynamiCrafter "
                         f"Conditioning to 'negative'; for guidance by the text alone set image_cfg to 1.")
    return conditioning_set_values(negative, {IMAGE_TOKENS: picture, "prompt_type": "negative"})


def against(text_only: torch.Tensor, u: torch.Tensor, u_img: torch.Tensor, s_txt: float, s_img: float) -> tuple[torch.Tensor, float]:
    """(what the guidance is to be against, its scale): D = it + scale (D(text, picture) - it)."""
    if s_txt == 1:  # then D(text, picture) + (s_img - 1) (D(no text, picture) - D(no text, no picture))
        return text_only - (u_img - u), s_img
    return torch.lerp(u, u_img, (s_txt - s_img) / (s_txt - 1)), s_txt


def spread(v: torch.Tensor) -> torch.Tensor:
    """Standard deviation over a whole clip."""
    return torch.std(v, dim=tuple(range(v.ndim == 5, v.ndim)), keepdim=True)


def rescaled(D: torch.Tensor, D_cond: torch.Tensor, none: torch.Tensor, phi: float) -> torch.Tensor:
    """v <- (phi std(v_cond) / std(v) + 1 - phi) v for the network's output v, where D = none + factor v: none is the prediction of a network that puts out 0."""
    return none + (phi * spread(D_cond - none) / spread(D - none) + 1 - phi) * (D - none)


def rescaling(phi: float, before=None):
    """The host's sampler_cfg_function with guidance rescale behind the ordinary guidance, or behind the function `before`."""
    def guidance(args):
        x, D_cond, D_uncond = args["input"], args["cond_denoised"], args["uncond_denoised"]
        D = x - before(args) if before else D_uncond + args["cond_scale"] * (D_cond - D_uncond)
        return x - rescaled(D, D_cond, args["model"].model_sampling.calculate_denoised(args["sigma"], torch.zeros_like(x), x), phi)
    return guidance


class MultiConditionGuider(CFGGuider):
    """cfg is s_txt. A call that its factor makes 0 is left out: where s_img is s_txt or 1 it is the host's own guidance, with two calls."""

    def set_conds(self, positive, negative):
        self.inner_set_conds({"positive": positive, "negative": negative, NO_TEXT: picture_without_text(positive, negative)})

    def set_cfg(self, text: float, image: float, rescale: float = 0.0):
        self.cfg, self.image_cfg, self.rescale = float(text), float(image), float(rescale)

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006  (the host's signature)
        cond, options, scale = self.conds["positive"], {**model_options}, self.cfg
        unsaid = self.conds[NO_TEXT] if self.image_cfg == 1 and self.cfg != 1 else self.conds["negative"]
        if self.rescale:
            options["sampler_cfg_function"] = rescaling(self.rescale, model_options.get("sampler_cfg_function"))
        if self.image_cfg not in (1, self.cfg):
            scale = self.cfg if self.cfg != 1 else self.image_cfg
            options["sampler_calc_cond_batch_function"] = self.of_three(model_options)
        return sampling_function(self.inner_model, x, timestep, unsaid, cond, scale, model_options=options, seed=seed)

    def of_three(self, model_options: dict):
        """The host's sampler_calc_cond_batch_function: the predictions for the prompt and for what the guidance is against. One that is there already gets pairs, as ever."""
        theirs = model_options.get("sampler_calc_cond_batch_function")

        def predictions(args):
            cond, u, u_img = (self.conds[name] for name in ("positive", "negative", NO_TEXT))
            if theirs is None:
                D, D_u, D_u_img = calc_cond_batch(args["model"], [cond, u, u_img], args["input"], args["sigma"], model_options)
            else:
                args = {**args, "model_options": model_options}
                (D, D_u), (_, D_u_img) = theirs({**args, "conds": [cond, u]}), theirs({**args, "conds": [None, u_img]})
            return [D, against(D, D_u, D_u_img, self.cfg, self.image_cfg)[0]]
        return predictions
