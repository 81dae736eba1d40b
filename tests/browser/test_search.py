"""What people type into the page's own search finds the nodes."""
import firstframe
import pytest
from firstframe.tests.browser import chromium

if not chromium.find():
    pytest.skip("The page is not tested: there is no Chromium or Chrome on the PATH.", allow_module_level=True)

PILIFE = {"PCFAPatch", "FF_I2VZero", "MotionAwareInversion", "MotionNoiseInit", "NoiseClipper", "FF_MotionTokens", "FF_MotionAttentionMap"}
MOTION = {"FF_MotionModuleLoader", "FF_MotionLoraLoader", "FF_MotionModuleApply"}
ADAPTER = {"FF_I2VAdapterLoader", "I2VAdapterApply", "FrameSimilarityPrior", "FF_MatchFrameColors"}
PICTURE = {"FF_ContentAdapterLoader", "FF_ContentAdapterApply"}
I4VGEN = {"NIVSDS", "FF_AnimateAnchor", "AnchorImageSelect", "FF_AnchorImageSearch"}
REWARD = {"FF_RewardModelLoader", "FF_CLIPScore"}
SPARSE = {"FF_SparseCtrlLoader", "FF_SparseCtrlApply"}
CRAFTER = {"FF_DynamiCrafterLoader", "FF_DynamiCrafterConditioning", "FF_TextAlignedImageEmbedding", "FF_DualCrossAttentionPatch", "FF_DynamiCrafterSampler",
           "FF_MultiConditionGuider"}
VIDEO = {"FF_DynamiCrafterLoader", "FF_VideoCrafterConditioning"}
WORDS = {
    "first frame": {"FF_PictureToFrames", "FF_I2VZero"}, "image to video": {"FF_PictureToFrames", "PCFAPatch", "FF_MotionModuleApply"},
    "i2v": {"FF_PictureToFrames", "PCFAPatch", "FF_I2VZero", "MotionAwareInversion", "FF_MotionModuleApply"}, "animatediff": MOTION,
    "motion module": {"FF_MotionModuleLoader", "FF_MotionModuleApply"}, "motion lora": {"FF_MotionLoraLoader"}, "temporal": MOTION | {"PCFAPatch"},
    "null-text": {"MotionAwareInversion"}, "inversion": {"MotionAwareInversion", "FF_I2VZero"}, "cross-frame": {"PCFAPatch", "FF_I2VZero"}, "pilife": PILIFE,
    "text2video-zero": {"FF_I2VZero"}, "motion words": {"FF_MotionTokens"}, "motion mask": {"FF_MotionAttentionMap"}, "start noise": {"MotionNoiseInit", "NoiseClipper"},
    "ip-adapter": PICTURE, "ipadapter": PICTURE, "image prompt": PICTURE, "reference image": PICTURE, "i2v-adapter": PICTURE | ADAPTER, "content-adapter": PICTURE,
    "frame similarity": {"FrameSimilarityPrior"}, "color match": {"FF_MatchFrameColors"}, "histogram": {"FF_MatchFrameColors"},
    "i4vgen": I4VGEN | REWARD, "score distillation": {"NIVSDS"}, "static video": {"NIVSDS", "FF_AnimateAnchor"}, "best of n": {"AnchorImageSelect", "FF_AnchorImageSearch"},
    "reward": REWARD, "imagereward": {"FF_RewardModelLoader"},
    "pickscore": {"FF_RewardModelLoader"}, "hpsv2": {"FF_RewardModelLoader"}, "clip score": {"FF_CLIPScore"},
    "sparsectrl": SPARSE, "controlnet": SPARSE, "key frames": {"FF_SparseCtrlApply"},
    "dynamicrafter": CRAFTER, "videocrafter": VIDEO, "interpolation": {"FF_DynamiCrafterLoader", "FF_DynamiCrafterConditioning"}, "image tokens": {"FF_TextAlignedImageEmbedding"},
    "ddim": {"FF_DynamiCrafterSampler", "MotionAwareInversion"}, "dual cfg": {"FF_MultiConditionGuider"}, "rescalecfg": {"FF_MultiConditionGuider"},
    "firstframe": {"FF_PictureToFrames"} | PILIFE | MOTION | PICTURE | ADAPTER | I4VGEN | REWARD | SPARSE | CRAFTER | VIDEO,
}


@pytest.fixture(scope="module")
def page(host):
    host.post("/api/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
    with chromium.Page(host.url) as page:
        page.until("app.graph && app.canvas && LiteGraph.registered_node_types['PCFAPatch'] && true", 240)
        yield page


def found(page, text: str) -> str:
    """The names that the search shows for a text."""
    page.evaluate("await app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    box = "document.querySelector('input[role=combobox]')"
    page.until(f"{box} && document.activeElement === {box}")
    before = page.evaluate("document.querySelector('#results-list')?.innerText ?? ''")
    page.command("Input.insertText", text=text)
    page.until(f"{box}.value === {text!r} && (document.querySelector('#results-list')?.innerText ?? '') !== {before!r}")
    names = page.until("[...document.querySelectorAll('[data-testid=result-item]')].map(e => e.innerText.split('\\n')[0])")
    page.evaluate("await app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.until(f"!{box}")
    return names


def test_every_node_is_among_the_words():
    assert set().union(*WORDS.values()) == {node.GET_SCHEMA().node_id for node in firstframe.NODES}


@pytest.mark.parametrize("text", WORDS)
def test_words_find_their_nodes(page, text):
    names = {node.GET_SCHEMA().node_id: node.GET_SCHEMA().display_name for node in firstframe.NODES}
    assert {names[node] for node in WORDS[text]} - set(found(page, text)) == set()
