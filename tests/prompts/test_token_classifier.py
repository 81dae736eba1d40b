"""A tiny BERT from a folder as the finder of motion words."""
import json
import shutil

import pytest
import torch
from firstframe.prompts.token_classifier import find_motion, motion_labels
from safetensors.torch import load_file, save_file
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


def config(change):
    def spoil(folder):
        found = json.loads((folder / "config.json").read_text())
        change(found)
        (folder / "config.json").write_text(json.dumps(found))
    return spoil


def tensors(change):
    def spoil(folder):
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors")
    return spoil


def part(name, share):
    def spoil(folder):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:int(share * len(whole))])
    return spoil


def fewer_words(folder):
    config(lambda c: c.update(vocab_size=4))(folder)
    tensors(lambda t: t.update({k: v[:4].clone() for k, v in t.items() if "word_embeddings" in k}))(folder)


def own_code(folder):
    config(lambda c: c.update(model_type="mine", auto_map={"AutoConfig": "code.C", "AutoModelForTokenClassification": "code.M"}))(folder)
    (folder / "code.py").write_text(f"open({str(folder / 'trace')!r}, 'w')")


SPOILED = {
    "half the weights": part("model.safetensors", 0.5), "no weights": part("model.safetensors", 0), "half the config": part("config.json", 0.5),
    "half the tokenizer": part("tokenizer.json", 0.5),
    "config is a list": lambda f: (f / "config.json").write_text("[1]"), "tokenizer is a list": lambda f: (f / "tokenizer.json").write_text("[1]"),
    "config is no text": lambda f: (f / "config.json").write_bytes(b"\xff\x00"), "weights are a folder": lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()),
    "another family": config(lambda c: c.update(model_type="gpt2", architectures=["GPT2LMHeadModel"])), "an unknown family": config(lambda c: c.update(model_type="?")),
    "no family": config(lambda c: c.pop("model_type")), "wider": config(lambda c: c.update(hidden_size=16)), "width of text": config(lambda c: c.update(hidden_size="wide")),
    "odd heads": config(lambda c: c.update(num_attention_heads=3, num_hidden_layers=1)), "more layers": config(lambda c: c.update(num_hidden_layers=2)),
    "no labels": config(lambda c: c.update(id2label={}, label2id={})), "one label": config(lambda c: c.update(id2label={"0": "O"}, label2id={"O": 0})),
    "labels left out": config(lambda c: (c.pop("id2label"), c.pop("label2id"), c.update(num_labels=3))),
    "a gap in the labels": config(lambda c: c.update(id2label={"0": "O", "7": "MOTION"})),
    "labels are numbers": config(lambda c: c.update(id2label={"0": 0, "1": 1})), "labels are a list": config(lambda c: c.update(id2label=["O", "MOTION"])),
    "labels are no numbers": config(lambda c: c.update(id2label={"a": "O", "b": "MOTION"})),
    "no classifier": tensors(lambda t: [t.pop(k) for k in list(t) if "classifier" in k]), "flat classifier": tensors(lambda t: t.update({"classifier.weight": torch.ones(16)})),
    "a scalar": tensors(lambda t: t.update({"classifier.bias": torch.ones(())})), "NaN": tensors(lambda t: t["classifier.bias"].fill_(torch.nan)), "no tensors": tensors(lambda t: t.clear()),
    "fewer words than the tokenizer": fewer_words, "fewer positions than tokens": lambda f: (config(lambda c: c.update(max_position_embeddings=3))(f), tensors(
        lambda t: t.update({"bert.embeddings.position_embeddings.weight": torch.zeros(3, 8)}))(f)),
    "code of its own": own_code,
}


@pytest.mark.parametrize("kind", SPOILED)
def test_spoiled_folders_are_named(folder, tmp_path, kind):
    mine = shutil.copytree(folder, tmp_path / "mine")
    SPOILED[kind](mine)
    with pytest.raises(ValueError, match="^The folder 'mine' holds no token-classification model that transformers can read: .+\\. Expected config.json, model.safetensors and") as caught:
        find_motion("a bear dancing", mine)
    assert "trust_remote_code" not in str(caught.value) and "\n" not in str(caught.value) and not (mine / "trace").exists()


def test_the_node_offers_and_uses_it(folder, tmp_path):
    import comfy.sd
    import folder_paths
    from firstframe.demo.in_process import CHECKPOINT
    from firstframe.nodes.motion_tokens import TAGGERS, MotionTokensNode
    folder_paths.add_model_folder_path(TAGGERS, str(folder.parent))
    assert "mine" in next(i for i in MotionTokensNode.GET_SCHEMA().inputs if i.id == "tagger").options
    clip = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT), output_vae=False)[1]
    assert MotionTokensNode.execute(clip, "a bear dancing on the sea", "", "mine").result[2] == "a bear [[dancing]] on the sea"
