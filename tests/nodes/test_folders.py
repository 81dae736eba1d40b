"""A model folder of ours beside what another pack, or the user's paths file, has said about it."""
import os

import folder_paths
from firstframe.nodes.folders import register_folder


def test_paths_of_others_stay_and_only_model_files_are_listed(tmp_path):
    (tmp_path / "module.ckpt").touch()
    (tmp_path / "notes.txt").touch()
    folder_paths.add_model_folder_path("firstframe_test", str(tmp_path))
    assert folder_paths.get_filename_list("firstframe_test") == ["module.ckpt", "notes.txt"]  # a folder that the host does not know lists everything
    for _ in range(2):
        register_folder("firstframe_test")
    assert folder_paths.get_folder_paths("firstframe_test") == [str(tmp_path), os.path.join(folder_paths.models_dir, "firstframe_test")]
    folder_paths.filename_list_cache.pop("firstframe_test", None)
    assert folder_paths.get_filename_list("firstframe_test") == ["module.ckpt"]
