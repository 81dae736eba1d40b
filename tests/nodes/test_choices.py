"""Choices that the host does not compare with the list, because they come through a link, and the files behind them."""
import pickle
import zipfile

import folder_paths
import pytest
import torch
from firstframe.nodes.choices import known
from firstframe.nodes.folders import read
from firstframe.nodes.motion_module import LORAS, MODULES, MotionModuleLoader
from firstframe.nodes.motion_tokens import choose
from firstframe.tests import motion_files as files
from firstframe.tests import tiny_models as tiny
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("modules")
    for kind in (MODULES, LORAS):
        folder_paths.add_model_folder_path(kind, str(path))
    save_file({"a": torch.zeros(2)}, path / "one.safetensors")
    torch.save({"a": torch.zeros(2)}, path / "two.ckpt")
    return path


@pytest.mark.parametrize("choice", ["three", "", "../two.ckpt", None, 7, ["two.ckpt"], {"a": 1}])
def test_a_choice_that_there_is_not_is_named_with_those_that_there_are(folder, choice):
    with pytest.raises(ValueError, match="Load Motion Module knows no choice in 'motion_module' of the name .*one.safetensors, two.ckpt"):
        MotionModuleLoader.execute(choice)
    with pytest.raises(ValueError, match="Motion Tokens knows no 'tagger' .*models/motion_taggers.* Choose one of: auto, off"):
        choose("a bear", "", choice)


def test_long_lists_are_cut_and_empty_ones_say_so():
    with pytest.raises(ValueError, match="0, 1, .* 19 and 80 more.$"):
        known("x", [str(i) for i in range(100)], "N", "file")
    with pytest.raises(ValueError, match="N knows no file of the name 'x'. There is none: put one there and press R."):
        known("x", [], "N", "file")
    assert known("b", ["a", "b"], "N", "file") == "b"


class Thing:
    pass


def whole(path):
    torch.save({"a": torch.zeros(200)}, path)
    return path.read_bytes()


UNREADABLE = {
    "an object": (lambda p: torch.save({"state_dict": Thing()}, p), "other things than tensors"),
    "a bare pickle of one": (lambda p: p.write_bytes(pickle.dumps(Thing())), "other things than tensors"),
    "text": (lambda p: p.write_text("<html>not found</html>"), "damaged"), "nothing": (lambda p: p.write_bytes(b""), "damaged"), "half": (lambda p: p.write_bytes(whole(p)[:700]), "damaged"),
    "an archive": (lambda p: zipfile.ZipFile(p, "w").writestr("a", "b"), "damaged"), "a number": (lambda p: torch.save(7, p), "no file of weights"),
    "a list": (lambda p: torch.save([torch.zeros(2)], p), "no file of weights"), "a tensor": (lambda p: torch.save(torch.zeros(2), p), "no file of weights"),
    "a string": (lambda p: torch.save({"state_dict": "x"}, p), "found a str\\. Choose another"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_files_that_cannot_be_read_are_named_without_the_advice_to_run_them(folder, kind):
    write, says = UNREADABLE[kind]
    write(folder / "bad.ckpt")
    folder_paths.filename_list_cache.clear()
    with pytest.raises(ValueError, match=f"Load Motion Module .*'bad.ckpt' in models/animatediff_models.*{says}") as caught:
        read(MODULES, "bad.ckpt", "Load Motion Module")
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_gone_when_it_is_needed_again_is_named(folder):
    small = tiny.model(num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 0], transformer_depth_output=[1, 1, 0, 0])
    save_file(files.module(small), folder / "module.safetensors")
    folder_paths.filename_list_cache.clear()
    motion, = MotionModuleLoader.execute("module.safetensors").result
    copy = motion.patcher.deepclone_multigpu(new_load_device=torch.device("cpu"))
    assert copy.model is not motion.patcher.model
    (folder / "module.safetensors").unlink()
    folder_paths.filename_list_cache.clear()
    with pytest.raises(ValueError, match="Load Motion Module knows no file in models/animatediff_models of the name 'module.safetensors'"):
        motion.patcher.deepclone_multigpu()
