"""Nodes of I4VGen's first stage: choosing the anchor image. They wire; the search is in samplers/anchor_search.py, the reward models in networks/."""
import comfy.sample
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph import ExecutionBlocker

from ..networks.reward import check_prompt
from ..samplers.anchor_search import Drafts, check_cuts, coarse, ranking, search
from ..samplers.frame_similarity import check_format
from .contact_sheet import contact_sheet
from .inputs import Node
from .number_lists import numbers
from .reward_models import RewardModelWire

SELECT, SEARCH = "Select Anchor Image", "Search Anchor Image"
DRAFT_STEPS, FINALISTS = 6, 2


def ranked(order: list[int], scores: torch.Tensor) -> str:
    """A line for each image, the best first."""
    return "\n".join(f"{place}. image {i + 1}: {float(scores[i]):.4f}" for place, i in enumerate(order, 1))


class AnchorImageSelect(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnchorImageSelect",
            display_name="Select Anchor Image (I4VGen)",
            category="FirstFrame/I4VGen",
            search_aliases=["FirstFrame", "I4VGen", "best of N", "best image", "ImageReward", "PickScore", "HPSv2", "CLIPScore", "rank images", "select image", "anchor image"],
            description="Picks the image that fits the prompt best, by a reward model (I4VGen): it becomes the video's ground. All scores are shown on the node.",
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The candidates: a batch of any number, or a list of images of several sizes."),
                RewardModelWire.Input("reward_model", tooltip="Scores an image beside a prompt: from Load Reward Model or CLIPScore."),
                io.String.Input("prompt", multiline=True, tooltip="What the image is measured by: the positive prompt, as text."),
                io.Latent.Input("samples", optional=True, tooltip="The candidates' latents in the same order: the best one's comes out as it is, without being encoded again."),
                io.Int.Input("top_k", default=0, min=0, max=4096, optional=True, tooltip="How many images come out in ranked, the best first. 0: all. Higher: more of them."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The best one."),
                io.Latent.Output(display_name="latent", tooltip="Its latent, if samples is connected."),
                io.Int.Output(display_name="index", tooltip="Its place in the batch, from 0."),
                io.Image.Output(display_name="ranked", tooltip="The images, the best first, if they are of one size."),
                io.String.Output(display_name="scores", tooltip="A line for each image, the best first."),
            ],
        )

    @classmethod
    def execute(cls, images, reward_model, prompt, samples=(), top_k=(0,)) -> io.NodeOutput:
        scores = torch.cat([reward_model[0].scores(batch, prompt[0], SELECT) for batch in images])
        every = [image[None, ..., :3] for batch in images for image in batch]
        order = ranking(scores, SELECT)
        best, k = order[0], top_k[0] or len(order)
        one_size = len({tuple(image.shape) for image in every}) == 1
        return io.NodeOutput(
            every[best], latent_of(samples, best, len(every)), best,
            torch.cat([every[i] for i in order[:k]]) if one_size else ExecutionBlocker(
                f"{SELECT} got images of several sizes, which make no batch for 'ranked'. Scale them to one size before it, or use its output 'image'."),
            ranked(order, scores), ui=ui.PreviewImage(contact_sheet([every[i] for i in order], [f"image {i + 1}: {float(scores[i]):.4f}" for i in order]), cls=cls))


def latent_of(samples: list, best: int, count: int):
    """The latent number `best` of those in a list of LATENTs, or what blocks the nodes behind it where there are none. Raises ValueError for another number of them than `count`."""
    if not samples or samples[0] is None:
        return ExecutionBlocker(f"{SELECT} gives out a latent only when 'samples' is connected. Connect the candidates' latents there, or encode its output 'image'.")
    found = [(latent, i) for latent in samples for i in range(len(latent["samples"]))]
    if len(found) != count:
        raise ValueError(f"{SELECT} got {len(found)} latents in 'samples' for {count} images. Connect those that the images were decoded from.")
    latent, i = found[best]
    return {"samples": latent["samples"][i:i + 1].clone()}


def check_candidates(model, z: torch.Tensor) -> None:
    """Raises ValueError unless z holds latents of single pictures for the model."""
    check_format(z, model.get_model_object("latent_format"), type(model.model).__name__, SEARCH)
    if not z.numel() or z.ndim == 5 and z.shape[2] != 1 or not torch.isfinite(z).all():
        raise ValueError(f"{SEARCH} needs an empty latent with one picture for each candidate in 'latent_image' (of a video model one frame), got {list(z.shape)}. "
                         f"Connect Empty Latent Image with a batch_size of 16, or a video model's with length 1.")


class AnchorImageSearch(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_AnchorImageSearch",
            display_name="Search Anchor Image (I4VGen)",
            category="FirstFrame/I4VGen",
            search_aliases=["FirstFrame", "I4VGen", "best of N", "best image", "successive halving", "ImageReward", "candidates", "sampler", "anchor image"],
            description="Samples many candidate images and gives out the one that fits the prompt best, as SamplerCustomAdvanced and Select Anchor Image would, for a third of the model "
                        "calls: only the best of quick drafts are sampled to the end.",
            inputs=[
                io.Noise.Input("noise", tooltip="From RandomNoise. With the seed of the video's noise the candidates begin from its frames, as in the paper."),
                io.Guider.Input("guider", tooltip="Model and prompts, from CFGGuider or another guider. For AnimateDiff the checkpoint's own model, without the motion module."),
                io.Sampler.Input("sampler", tooltip="From KSamplerSelect. euler and ddim give each candidate as without this search; samplers that remember earlier steps (dpmpp_2m) begin "
                                                    "anew after each scoring, those that add noise draw another one."),
                io.Sigmas.Input("sigmas", tooltip="The schedule, from Basic Scheduler."),
                io.Latent.Input("latent_image", tooltip="An empty latent with one entry for each candidate (the paper has 16). More: a better best one, and more time."),
                io.Vae.Input("vae", tooltip="Of the model: what is scored are pictures."),
                RewardModelWire.Input("reward_model", tooltip="Scores an image beside a prompt: from Load Reward Model or CLIPScore."),
                io.String.Input("prompt", multiline=True, tooltip="What the image is measured by: the positive prompt, as text."),
                io.String.Input("halve_after", default="",
                                tooltip="Steps after which the denoised predictions are scored and the worst dropped, with commas between them, such as 8, 12, 16. Later: surer, and more "
                                        "time. Empty: off."),
                io.Float.Input("drop", default=0.5, min=0.0, max=0.99, step=0.01,
                               tooltip="With halve_after: share of those left that is dropped each time. 0: none. Higher: less time, and the best one is lost more often. One always stays."),
                io.Int.Input("draft_steps", default=DRAFT_STEPS, min=0, max=1000, optional=True,
                             tooltip="Each candidate is first drawn in so few steps of the same schedule, from the same noise, and the drafts are scored. More: surer, more time. 0: off."),
                io.Int.Input("finalists", default=FINALISTS, min=1, max=4096, optional=True,
                             tooltip="With draft_steps: how many of the best drafts are sampled in all steps; the best of these is the anchor. More: surer, and more time."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The best one."),
                io.Latent.Output(display_name="latent", tooltip="Its latent."),
                io.Int.Output(display_name="index", tooltip="Its place among the candidates, from 0."),
                io.String.Output(display_name="scores", tooltip="Each candidate's last score, and what the search cost."),
            ],
        )

    @classmethod
    def execute(cls, noise, guider, sampler, sigmas, latent_image, vae, reward_model, prompt, halve_after, drop, draft_steps=DRAFT_STEPS, finalists=FINALISTS) -> io.NodeOutput:
        check_prompt(prompt, SEARCH)
        ratios = (latent_image.get(f"downscale_ratio_{of}") for of in ("spacial", "temporal"))
        z, steps = comfy.sample.fix_empty_latent_channels(guider.model_patcher, latent_image["samples"], *ratios), len(sigmas) - 1
        cuts = numbers(halve_after, SEARCH, "halve_after", 1, 10000, "8, 12, 16")
        if steps < 1 or not torch.isfinite(sigmas).all():
            raise ValueError(f"{SEARCH} got a schedule {'without steps' if steps < 1 else 'with NaN or infinite levels'} in 'sigmas'. Connect Basic Scheduler with at least 1 step.")
        check_cuts(cuts, steps, SEARCH, "halve_after")
        if draft_steps >= steps:
            raise ValueError(f"{SEARCH} draws drafts in fewer steps than the schedule has, got {draft_steps} in 'draft_steps' and {steps} steps in 'sigmas'. Lower it, or set it to 0: off.")
        check_candidates(guider.model_patcher, z)
        cuts, start, total = [int(cut) for cut in cuts] if drop else [], noise.generate_noise({**latent_image, "samples": z}), len(z)
        if start.shape != z.shape or not torch.isfinite(start).all():
            what = list(start.shape) if start.shape != z.shape else "NaN or infinite values"
            raise ValueError(f"{SEARCH} needs noise like the candidates {list(z.shape)} in 'noise', got {what}. Connect RandomNoise.")
        process_out = guider.model_patcher.model.process_latent_out

        def run(eps, latents, levels, begin, total):
            """Samples, and the last denoised prediction, of steps that are shown as those from `begin` of `total`."""
            seen = {}
            preview = latent_preview.prepare_callback(guider.model_patcher, total, seen)
            out = guider.sample(eps, latents, sampler, levels, callback=lambda i, x0, x, _: preview(begin + i, x0, x, total),
                                disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=noise.seed)
            return out.cpu(), process_out(seen["x0"].float().cpu())

        def sample(rows, latents, begin, end):
            return run(start[rows] if begin == 0 else torch.zeros_like(latents), latents, sigmas[begin:end + 1], begin, steps)

        def draft(rows, latents):
            return run(start[rows], latents, coarse(sigmas, draft_steps), 0, draft_steps)[0]

        def pictures(latents):
            images = vae.decode(latents)
            return images.flatten(0, 1) if images.ndim == 5 else images

        def score(rows, latents):
            images = pictures(latents)
            shown.update(zip(rows, images.split(1)))
            return reward_model.scores(images, prompt, SEARCH)

        shown = {}  # each candidate as it was last scored
        found = search(sample, score, z, steps, cuts, drop, SEARCH, Drafts(draft, draft_steps, finalists) if draft_steps else None)
        best = pictures(found.latent)
        shown[found.index] = best
        lines = [f"image {i + 1}: {found.scores.get(i, float('nan')):.4f}" for i in range(total)]
        text = "\n".join((f"image {found.index + 1} of {total}; {found.calls} model calls of one candidate, {found.calls / total:.2f} times the batch's (all to the end: {steps})", *lines))
        labels = [f"best, {line}" if i == found.index else line for i, line in enumerate(lines)]
        return io.NodeOutput(best, {"samples": found.latent}, found.index, text, ui=ui.PreviewImage(contact_sheet([shown[i] for i in range(total)], labels), cls=cls))
