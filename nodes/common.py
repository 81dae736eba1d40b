"""Small things that several node modules say in the same words."""
import os

import folder_paths


def expert(widget):
    """Folds an input away under the node's advanced section, and lets graphs leave it out; hosts before 0.30 ignore `advanced`."""
    widget.optional = True
    widget.extra_dict = {**(getattr(widget, "extra_dict", None) or {}), "advanced": True}
    return widget


def register_folder(folder: str) -> None:
    """Adds a folder of models/ to the host's list, and file extensions to whatever another pack or the user's paths file has put there."""
    paths, extensions = folder_paths.folder_names_and_paths.get(folder, ([], set()))
    own = os.path.join(folder_paths.models_dir, folder)
    folder_paths.folder_names_and_paths[folder] = (paths if own in paths else [*paths, own], set(extensions) | set(folder_paths.supported_pt_extensions))
