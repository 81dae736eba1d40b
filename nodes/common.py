"""Small things that several node modules say in the same words."""
import os

import folder_paths

from ..attention_patches.unet import STAGES

# choices of an input 'stages': the parts of the UNet
STAGE_CHOICES = {"all": STAGES, **{stage: (stage,) for stage in STAGES}, "input + middle": STAGES[:2], "middle + output": STAGES[1:], "input + output": STAGES[::2]}


def register_folder(folder: str) -> None:
    """Adds a folder of models/ to the host's list, and file extensions to whatever another pack or the user's paths file has put there."""
    paths, extensions = folder_paths.folder_names_and_paths.get(folder, ([], set()))
    own = os.path.join(folder_paths.models_dir, folder)
    folder_paths.folder_names_and_paths[folder] = (paths if own in paths else [*paths, own], set(extensions) | set(folder_paths.supported_pt_extensions))
