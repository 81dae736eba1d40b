"""Folders of models/: making them known to the host, and reading a file of one."""
import os
import pickle

import comfy.utils
import folder_paths

from .choices import known


def register_folder(folder: str, *also: str) -> None:
    """Adds a folder of models/ to the host's list, and file extensions to whatever another pack or the user's paths file has put there.

    also: folders of the host in which such files lie too.
    """
    paths, extensions = folder_paths.folder_names_and_paths.get(folder, ([], set()))
    own = [os.path.join(folder_paths.models_dir, folder), *(path for other in also for path in folder_paths.get_folder_paths(other))]
    paths = [*paths, *(path for path in own if path not in paths)]
    folder_paths.folder_names_and_paths[folder] = paths, set(extensions) | set(folder_paths.supported_pt_extensions)


def reason(error: Exception) -> str:
    """Why a file cannot be read, without the library's own advice (torch's is to read it unsafely)."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or holds other things than tensors."
    if isinstance(error, OSError):
        return f"{(error.strerror or 'no such file').lower()}."
    return "it is damaged, incomplete, or no file of weights."


def read(folder: str, name: str, who: str) -> dict:
    """The file's tensors, through the host's safe loader. Raises ValueError for a file that it cannot or may not read."""
    known(name, folder_paths.get_filename_list(folder), who, f"file in models/{folder}")
    try:
        sd = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise(folder, name), safe_load=True)
    except Exception as error:
        raise ValueError(f"{who} cannot read {name!r} in models/{folder}: {reason(error)} "
                         f"Nothing in the file was run. Fetch it again, as .safetensors if there is one.") from error
    if not isinstance(sd, dict):
        raise ValueError(f"{who} expected named tensors in {name!r} in models/{folder}, found a {type(sd).__name__}. Choose another file.")
    return sd


def beside(folder: str, name: str, other: str) -> str | None:
    """The path of the file `other` beside the file `name`, or else at the top of models/<folder>; None if there is none."""
    places = [os.path.dirname(folder_paths.get_full_path_or_raise(folder, name)), *folder_paths.get_folder_paths(folder)]
    return next((path for path in (os.path.join(place, other) for place in places) if os.path.isfile(path)), None)
