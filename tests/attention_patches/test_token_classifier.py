"""A tiny BERT from a folder as the finder of motion words."""
import pytest
import torch
from firstframe.attention_patches.token_classifier import find_motion, motion_labels
from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "bear", "danc", "##ing", "on", "the", "sea", "##s", "(", ")", ":", "1", ".", "2", ","]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model without layers that labels the token "danc" as motion, and every other one not."""
    path = tmp_path_factory.mktemp("taggers") / "mine"
    path.mkdir()
    BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(path)
    model = BertForTokenClassification(BertConfig(vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=0, num_attention_heads=1, intermediate_size=8,
                                                  id2label={0: "O", 1: "MOTION"}, label2id={"O": 0, "MOTION": 1}))
    with torch.no_grad():
        for p in model.bert.embeddings.parameters():
            p.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1.0)
        model.bert.embeddings.word_embeddings.weight[:, 0] = -1.0
        model.bert.embeddings.word_embeddings.weight[WORDS.index("danc"), 0] = 1.0
        model.classifier.weight.zero_()
        model.classifier.weight[1, 0] = 1.0
        model.classifier.bias.zero_()
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("text,words", [
    ("a bear dancing on the sea", ["dancing"]), ("a (dancing:1.2) bear, dancing", ["dancing", "dancing"]), ("a bear on the seas", []), ("Dancing", ["Dancing"])])
def test_words_are_found_whole_and_in_place(folder, text, words):
    assert [text[a:b] for a, b in find_motion(text, folder)] == words


@pytest.mark.parametrize("labels,motion", [
    (["O", "B-MOT", "I-MOT"], {"B-MOT", "I-MOT"}), (["NOUN", "VERB", "AUX"], {"VERB"}), (["NN", "VB", "VBG"], {"VB", "VBG"}), (["LABEL_0", "LABEL_1"], {"LABEL_1"})])
def test_labels(labels, motion):
    assert motion_labels(labels) == motion


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"The folder '{tmp_path.name}' holds no token-classification model.*model.safetensors"):
        find_motion("a bear", tmp_path)


def test_pickled_weights_are_not_read(folder, tmp_path):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"not looked at")
    with pytest.raises(ValueError, match="holds no token-classification model"):
        find_motion("a bear", tmp_path)


def test_the_node_offers_and_uses_it(folder, tmp_path):
    import comfy.sd
    import folder_paths
    from firstframe.demo.in_process import CHECKPOINT
    from firstframe.nodes.motion_tokens import TAGGERS, MotionWords
    folder_paths.add_model_folder_path(TAGGERS, str(folder.parent))
    assert "mine" in next(i for i in MotionWords.GET_SCHEMA().inputs if i.id == "tagger").options
    clip = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT), output_vae=False)[1]
    assert MotionWords.execute(clip, "a bear dancing on the sea", "", "mine").result[2] == "a bear [[dancing]] on the sea"
