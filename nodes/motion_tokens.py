"""The node that chooses the motion words of a prompt. It wires; the choice is in prompts/."""
import logging
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..prompts import token_classifier
from ..prompts.motion_words import TaggerMissing, find_motion
from ..prompts.text import find_typed, mark
from ..prompts.tokens import check_encoder, motion_tokens
from .choices import known
from .folders import register_folder
from .inputs import Node

WHO = "Motion Tokens"
TAGGERS = "motion_taggers"
register_folder(TAGGERS)
MotionTokensType = io.Custom("MOTION_TOKENS")


def folders() -> dict[str, Path]:
    """{name: folder} of the user's token-classification models."""
    return {f.name: f for path in reversed(folder_paths.get_folder_paths(TAGGERS)) if Path(path).is_dir() for f in sorted(Path(path).iterdir()) if (f / "config.json").is_file()}


def choose(text: str, words: str, tagger: str) -> list[tuple[int, int]]:
    """Spans of the motion words: typed ones win, then the tagger's, then none."""
    if words.strip():
        return find_typed(text, words, WHO)
    taggers = folders()
    if known(tagger, ["auto", "off", *taggers], WHO, f"'tagger' (a folder in models/{TAGGERS})") == "off":
        return []
    if tagger != "auto":
        return token_classifier.find_motion(text, taggers[tagger])
    try:
        return find_motion(text)
    except TaggerMissing as error:
        raise RuntimeError(
            f"{WHO} got nothing in 'words' and cannot look for motion words itself: {error} "
            f"Type them (for example: dancing), set 'tagger' to off, or install it: pip install HanTa"
        ) from error


class MotionTokensNode(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_MotionTokens",
            display_name="Motion Tokens (PiLife)",
            category="FirstFrame/PiLife",
            search_aliases=["FirstFrame", "PiLife", "motion words", "motion text", "motion prompt", "CLIP Text Encode"],
            description="Encodes a prompt and says which of its words name a movement (PiLife, Eq. 11: the motion text): those that you type, "
                        "else the verbs of movement that it finds by itself in an English prompt.",
            is_output_node=True,  # so that the words can be looked at without running the rest
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP of an SD1.5- or SDXL-type checkpoint, with any LoRA. Left unchanged."),
                io.String.Input("text", multiline=True, dynamic_prompts=True,
                                tooltip="The prompt, with the host's weights (word:1.2), brackets and embeddings. Not empty."),
                io.String.Input("words", default="",
                                tooltip="Motion words or phrases of the prompt, separated by commas: dancing, falling snow. "
                                        "Every place where they stand counts; upper and lower case are the same. "
                                        "Empty (neutral): they are found by themselves. More words make more of the picture move."),
                io.Combo.Input("tagger", options=["auto", "off", *folders()], default="auto", optional=True, advanced=True,
                               tooltip="Only when 'words' is empty. auto: English verbs of movement, found with the package HanTa. "
                                       "off: no motion word, so that the whole picture counts alike. Any other: a Hugging Face token-classification "
                                       "model, a folder in models/motion_taggers."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="The prompt, encoded exactly as CLIP Text Encode does."),
                MotionTokensType.Output(display_name="motion_tokens",
                                        tooltip="Which columns of this conditioning are motion words; none means the whole picture."),
                io.String.Output(display_name="marked", tooltip="The prompt with the motion words marked: a bear is [[dancing]]. Also shown in the node."),
            ],
        )

    @classmethod
    def execute(cls, clip, text, words="", tagger="auto") -> io.NodeOutput:
        if clip is None:
            raise ValueError(f"{WHO} got no CLIP. This checkpoint may hold none: connect the CLIP of Load Checkpoint or Load CLIP.")
        if not text.strip():
            raise ValueError(f"{WHO} needs a prompt, got an empty one. Describe in 'text' what the picture shows and what moves.")
        check_encoder(tokens := clip.tokenize(text), WHO)
        spans = choose(text, words, tagger)
        conditioning = clip.encode_from_tokens_scheduled(tokens)
        chosen = motion_tokens(clip, text, spans, conditioning[0][0].shape[1], WHO)
        marked = mark(text, spans)
        if not spans:
            marked = f"(no motion word: the whole picture counts) {text}"
            logging.getLogger("FirstFrame").warning(
                "%s found no motion word in %r: the whole picture counts alike. Type one in 'words' to change that.", WHO, text)
        return io.NodeOutput(conditioning, chosen, marked, ui=ui.PreviewText(marked))
