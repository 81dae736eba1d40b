"""A network in the host's patcher: made, filled, reloadable, one copy a device.

The host makes further copies (another device, a copy outside dynamic VRAM) by running `cached_patcher_init` again: a network
that is in use carries native handles and must not be copied as an object.
"""
import comfy.model_management
import comfy.model_patcher
import comfy.ops


def in_patcher(make, weights: dict, read, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """make(dtype=, device=, operations=)'s network with `weights`, not yet on any device.

    weights: every one that the network has, of the right shapes (layers that load lazily would take wrong ones without a
    word). read(): the same weights from their source again, for another copy.
    """
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(device=device, model_params=sum(v.numel() for v in weights.values()))
    net = make(dtype=dtype, device=offload, operations=comfy.ops.manual_cast).eval().requires_grad_(False)
    patcher = kind(net, load_device=device, offload_device=offload)
    net.load_state_dict(weights, assign=patcher.is_dynamic())
    if not patcher.is_dynamic():
        net.to(dtype)  # layers that load lazily have the file's
    patcher.cached_patcher_init = (again, (make, read))
    return patcher


def again(make, read, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The network once more, read from its source. The signature is that of the host's own loaders."""
    return in_patcher(make, read(), read, disable_dynamic)


def another(patcher: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """A clone of `patcher` (the same LoRAs) around a network of its own, read from the source again."""
    function, args = patcher.cached_patcher_init
    fresh = function(*args, disable_dynamic=not patcher.is_dynamic())
    clone = patcher.clone(model_override=fresh.get_clone_model_override())
    clone.clone_base_uuid = fresh.clone_base_uuid  # by which the host tells whose copy on another device is whose
    clone.hook_backup = {}
    return clone


def for_model(patcher: comfy.model_patcher.ModelPatcher, model) -> comfy.model_patcher.ModelPatcher:
    """`patcher`; or one around another copy of its network, when `model` runs the same network with other LoRAs already: the host holds one set of weights for each."""
    same = [other for others in model.additional_models.values() for other in others if other.is_clone(patcher)]
    return patcher if all(other.patches_uuid == patcher.patches_uuid for other in same) else another(patcher)
