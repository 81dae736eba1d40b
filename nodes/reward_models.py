"""Nodes that give a reward model, which scores pictures by a prompt. They wire; networks and files are in networks/."""
from functools import partial

import folder_paths
from comfy_api.latest import io

from ..networks.clip_score import ClipScore
from ..networks.image_reward import VOCABULARY
from ..networks.reward import LOADER
from ..networks.reward_files import reward_model
from .folders import beside, read, register_folder
from .inputs import Node

RewardModelWire = io.Custom("REWARD_MODEL")
FOLDER = "reward_models"
register_folder(FOLDER)
load = reward_model  # the node's input has the same name


class RewardModelLoader(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_RewardModelLoader",
            display_name="Load Reward Model",
            category="FirstFrame/I4VGen",
            search_aliases=["FirstFrame", "I4VGen", "ImageReward", "PickScore", "HPSv2", "HPS", "reward model", "preference score", "aesthetic score"],
            description="Reads ImageReward, PickScore or HPSv2, which score how well a picture fits a prompt. The kind is told by what is in the file.",
            inputs=[io.Combo.Input("reward_model", options=folder_paths.get_filename_list(FOLDER),
                                   tooltip="A file of models/reward_models: ImageReward.pt (with vocab.txt of bert-base-uncased beside it), PickScore's model.safetensors, "
                                           "HPS_v2.1_compressed.pt. Folders in it count too.")],
            outputs=[RewardModelWire.Output(display_name="reward_model", tooltip="For nodes that score or choose pictures. Higher is better; scores of two models are not comparable.")],
        )

    @classmethod
    def execute(cls, reward_model) -> io.NodeOutput:
        source = partial(read, FOLDER, reward_model, LOADER)
        return io.NodeOutput(load(source, reward_model, partial(beside, FOLDER, reward_model, VOCABULARY)))


class ClipScoreNode(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_CLIPScore",
            display_name="CLIPScore (reward model)",
            category="FirstFrame/I4VGen",
            search_aliases=["FirstFrame", "I4VGen", "CLIPScore", "CLIP score", "reward model", "prompt fidelity", "text image similarity"],
            description="A reward model of the stock CLIP and CLIP_VISION: 100 times the cosine between prompt and picture. Needs no file of its own.",
            inputs=[
                io.Clip.Input("clip", tooltip="A CLIP with its text projection: from Load CLIP (clip_l.safetensors), or of an SDXL or SD2 checkpoint. SD1.5 checkpoints have none."),
                io.ClipVision.Input("clip_vision", tooltip="From Load CLIP Vision, of the same pair: ViT-L/14 for clip_l, ViT-H/14 for SD2's clip_h, ViT-bigG/14 for SDXL's clip_g."),
            ],
            outputs=[RewardModelWire.Output(display_name="reward_model", tooltip="For nodes that score or choose pictures: -100 to 100; higher fits the prompt better.")],
        )

    @classmethod
    def execute(cls, clip, clip_vision) -> io.NodeOutput:
        return io.NodeOutput(ClipScore(clip, clip_vision))
