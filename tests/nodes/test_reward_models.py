"""The nodes that give a reward model: what they read, from which folder, and that the wire takes nothing else."""
import firstframe.nodes.reward_models as nodes
import pytest
import torch
from firstframe.networks.reward import RewardModel
from firstframe.nodes.inputs import WIRES
from firstframe.nodes.reward_models import ClipScoreNode, RewardModelLoader
from firstframe.tests import adapter_files
from firstframe.tests import reward_files as files
from safetensors.torch import save_file

WHO = "Node"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(nodes.folder_paths.folder_names_and_paths, nodes.FOLDER, ([str(tmp_path)], {".safetensors", ".pt"}))
    return tmp_path


def load(name: str) -> RewardModel:
    return RewardModelLoader.execute(reward_model=name).result[0]


def test_files_of_the_folder_are_read(folder):
    """As they are published: a bare pickle, a pickle in a state_dict, a .safetensors in a folder of its own."""
    (folder / "PickScore_v1").mkdir()
    torch.save(files.image_reward(), folder / "ImageReward.pt")
    torch.save({"epoch": 3, "state_dict": files.open_clip(files.clip())}, folder / "HPS_v2.1_compressed.pt")
    save_file(files.clip(), folder / "PickScore_v1" / "model.safetensors")
    files.vocabulary(folder)
    images = files.pictures()
    scores = {name: load(name).scores(images, files.PROMPT, WHO) for name in nodes.folder_paths.get_filename_list(nodes.FOLDER)}
    assert set(scores) == {"ImageReward.pt", "HPS_v2.1_compressed.pt", "PickScore_v1/model.safetensors"}
    assert torch.equal(scores["HPS_v2.1_compressed.pt"], scores["PickScore_v1/model.safetensors"])
    assert load("ImageReward.pt").name == "ImageReward" and load("HPS_v2.1_compressed.pt").name == "HPS_v2.1_compressed.pt"
    with pytest.raises(ValueError, match="Load Reward Model knows no .*'other.pt'"):
        load("other.pt")


def test_the_vocabulary_lies_beside_the_file_or_on_top(folder):
    (folder / "sub").mkdir()
    torch.save(files.image_reward(), folder / "sub" / "ImageReward.pt")
    with pytest.raises(ValueError, match="needs the vocabulary of ImageReward beside 'sub/ImageReward.pt'. Fetch vocab.txt"):
        load("sub/ImageReward.pt")
    files.vocabulary(folder)
    on_top = load("sub/ImageReward.pt").scores(files.pictures(), "red", WHO)
    files.vocabulary(folder / "sub", [*files.WORDS[:-4], *reversed(files.WORDS[-4:])])
    assert torch.equal(load("sub/ImageReward.pt").scores(files.pictures(), "red", WHO), on_top)
    assert not torch.equal(load("sub/ImageReward.pt").scores(files.pictures(), "blue", WHO), on_top)
    blue = load("sub/ImageReward.pt").tokenizer.encode("blue").ids[1]
    assert blue != files.WORDS.index("blue"), "the one beside the file counts first"


def test_paths_of_the_user_count(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    nodes.folder_paths.add_model_folder_path(nodes.FOLDER, str(elsewhere))
    save_file(files.clip(), elsewhere / "pick.safetensors")
    assert "pick.safetensors" in nodes.folder_paths.get_filename_list(nodes.FOLDER) and load("pick.safetensors").side == files.SIDE


def test_a_damaged_file_is_named(folder):
    (folder / "half.pt").write_bytes(b"PK\x03\x04" + b"\0" * 40)
    with pytest.raises(ValueError, match="Load Reward Model cannot read 'half.pt' in models/reward_models: "):
        load("half.pt")


def test_what_is_no_clip_is_refused():
    with pytest.raises(ValueError, match="CLIPScore got nothing in 'clip'"):
        ClipScoreNode.execute(clip=None, clip_vision=adapter_files.clip_vision())
    with pytest.raises(ValueError, match="CLIPScore needs a CLIP_VISION"):
        ClipScoreNode.execute(clip=None, clip_vision=torch.ones(3))


def test_the_wire_takes_reward_models_only(folder):
    fits, _ = WIRES["REWARD_MODEL"]
    save_file(files.clip(), folder / "pick.safetensors")
    assert fits(load("pick.safetensors")) and not any(fits(v) for v in (None, "text", torch.ones(2), object()))
