"""Trains an I2V-Adapter for your own checkpoint, beside your own motion module, on a folder of clips with captions (docs/training.md).

    COMFYUI_PATH=... python demo/run.py train.own_clips --checkpoint FILE --motion-module FILE --clips FOLDER --out my_i2v.safetensors
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.own_clips ...     # one process a GPU

As in the paper (sections 3.2 and 4): checkpoint and motion module stay as they are; the first frame is free of noise and out of the loss, one timestep a clip,
AnimateDiff's noise schedule, AdamW at 1e-4.
"""
from .encoded_clips import batch_of
from .own_options import i2v_adapter
from .own_training import Training, run
from .workers import Workers


def begin_with(adapter, weights: dict, name: str) -> None:
    from ...networks.i2v_adapter import look
    found, _ = look(weights, name)
    shapes = {key: value.shape for key, value in adapter.state_dict().items()}
    if {key: value.shape for key, value in found.items()} != shapes:
        raise ValueError(f"The I2V-Adapter {name!r} of --begin-with is for another kind of checkpoint.")
    adapter.load_state_dict({key: value.float() for key, value in found.items()})


def train(args, workers: Workers) -> bool:
    """Whether it came to its end. Raises ValueError for what cannot be trained, before the first step."""
    from .i2v_adapter import build
    from .own_model import OwnModel, read_motion, weights_of
    training = Training("i2v_adapter", args, args.motion_module, workers)
    motion = read_motion(args.motion_module, training.model, args.frames)
    training.check_same({"--motion-module": args.motion_module.name})
    clips, without = training.encoded(args.frames)
    own = OwnModel(training.model, motion, training.precision)
    adapter, layers = build(own.unet)
    if args.begin_with:
        begin_with(adapter, weights_of(args.begin_with), args.begin_with.name)

    def batch(rng):
        return batch_of(clips, without, args.batch, args.frames, args.no_caption, rng)

    return training.fit(own, adapter, batch, own.with_adapter(adapter, layers, args.batch, args.frames, args.save_memory), clean_first=True)


def main(argv: list[str]) -> int:
    return run(i2v_adapter().parse_args(argv), train)
