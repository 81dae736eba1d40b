"""ComfyUI-FirstFrame: one picture becomes the first frame of a video, on the user's own UNet model."""
from comfy_api.latest import ComfyExtension

from .nodes.anchor import AnchorImageSearch, AnchorImageSelect
from .nodes.attention_map import MotionAttentionMap
from .nodes.content_adapter import ContentAdapterApply, ContentAdapterLoader
from .nodes.dynamicrafter import (
    DualCrossAttentionPatch,
    DynamiCrafterConditioning,
    DynamiCrafterLoader,
    TextAlignedImageEmbedding,
    VideoCrafterConditioning,
)
from .nodes.dynamicrafter_sampling import DynamiCrafterSampler, MultiConditionGuiderNode
from .nodes.frame_colors import MatchFrameColors
from .nodes.frame_similarity import FrameSimilarityPrior
from .nodes.frames import PictureToFrames
from .nodes.i2v_adapter import I2VAdapterApply, I2VAdapterLoader
from .nodes.i4vgen import NIVSDS, AnimateAnchor
from .nodes.inversion import MotionAwareInversion
from .nodes.motion_module import MotionLoraLoader, MotionModuleApply, MotionModuleLoader
from .nodes.motion_noise import MotionNoiseInit, NoiseClipper
from .nodes.motion_tokens import MotionTokensNode
from .nodes.pilife import I2VZero, PCFAPatch
from .nodes.reward_models import ClipScoreNode, RewardModelLoader
from .nodes.sparse_ctrl import SparseCtrlApply, SparseCtrlLoader

WEB_DIRECTORY = "./web"
NODES = [PictureToFrames, PCFAPatch, I2VZero, MotionAwareInversion, MotionNoiseInit, NoiseClipper, MotionTokensNode, MotionAttentionMap,
         MotionModuleLoader, MotionLoraLoader, MotionModuleApply, I2VAdapterLoader, I2VAdapterApply, ContentAdapterLoader, ContentAdapterApply,
         FrameSimilarityPrior, MatchFrameColors, RewardModelLoader, ClipScoreNode, AnchorImageSelect,
         AnchorImageSearch, NIVSDS, AnimateAnchor, SparseCtrlLoader, SparseCtrlApply, DynamiCrafterLoader, DynamiCrafterConditioning, TextAlignedImageEmbedding,
         DualCrossAttentionPatch, VideoCrafterConditioning, DynamiCrafterSampler, MultiConditionGuiderNode]


class FirstFrame(ComfyExtension):
    async def get_node_list(self):
        return NODES


async def comfy_entrypoint():
    return FirstFrame()
