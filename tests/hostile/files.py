"""Bad files for the pack's loaders, made from good ones. Import as `firstframe.tests.hostile.files`.

A bad file is a function(path, good) that writes it; good: the tensors of a good file of its kind.
"""
import pickle
import struct

import torch
from safetensors.torch import save, save_file

BLOCK = "transformer_blocks.0."


def raw(data):
    """`data`, bytes or a function of the good file's bytes."""
    return lambda path, good: path.write_bytes(data(save(good)) if callable(data) else data)


def tensors(change):
    """The good tensors after `change`, which gives a dict or changes theirs."""
    def write(path, good):
        good = {k: v.clone() for k, v in good.items()}
        changed = change(good)
        save_file({k: v.contiguous() for k, v in (changed if isinstance(changed, dict) else good).items()}, path)
    return write


def pickled(make, save=torch.save):
    return lambda path, good: save(make(good), path)


def each(change):
    return tensors(lambda good: {k: change(v) for k, v in good.items()})


def one(change, *parts):
    """One tensor changed whose key has one of the parts; by default one that every kind of file has, of an attention."""
    parts = parts or ("to_q", ".query.")
    return tensors(lambda good: {**good, **{k: change(good[k]) for k in [next(k for k in good if any(part in k for part in parts))]}})


def spoilt(value):
    return lambda v: v.index_fill(0, torch.tensor([0]), value)


def header(size: int) -> bytes:
    return struct.pack("<Q", size) + b'{"a":{"dtype":"F32","shape":[9,9],"data_offsets":[0,324]}}'


ANY = {  # of every kind of file
    "empty.safetensors": raw(b""), "text.safetensors": raw(b"a page of a web site" * 50),
    "no_json.safetensors": raw(struct.pack("<Q", 4) + b"{{{{"),
    "huge_header.safetensors": raw(header(2**62)), "lying_header.safetensors": raw(header(58)), "half.safetensors": raw(lambda data: data[:len(data) // 2]),
    "no_tensor.safetensors": tensors(lambda good: {}), "a_folder.safetensors": lambda path, good: path.mkdir(), "other.safetensors": tensors(lambda good: {"weight": torch.ones(3)}),
    "empty.ckpt": raw(b""), "text.ckpt": raw(b"a page of a web site" * 50), "zip.ckpt": raw(b"PK\x03\x04" + b"\0" * 40), "list.ckpt": pickled(lambda good: list(good.values())),
    "one_tensor.ckpt": pickled(lambda good: torch.ones(3)), "number.ckpt": pickled(lambda good: 5), "none.ckpt": pickled(lambda good: None),
    "wrapped_list.ckpt": pickled(lambda good: {"state_dict": [1]}), "no_state.ckpt": pickled(lambda good: {"state_dict": None}),
    "numbered.ckpt": pickled(lambda good: dict(enumerate(good.values()))),
    "texts.ckpt": pickled(lambda good: dict.fromkeys(good, "text")), "object.ckpt": pickled(lambda good: {"state_dict": struct.Struct}), "code.ckpt": pickled(
        lambda good: print, lambda value, path: path.write_bytes(pickle.dumps(value))),
    "int8.safetensors": each(lambda v: v.char()), "int64.safetensors": each(lambda v: v.long()), "bool.safetensors": each(lambda v: v > 0),
    "complex.ckpt": pickled(lambda good: {k: v.to(torch.complex64) for k, v in good.items()}), "sparse.ckpt": pickled(lambda good: {k: v.to_sparse() for k, v in good.items()}),
    "nan.safetensors": one(spoilt(torch.nan)), "infinity.safetensors": one(spoilt(-torch.inf)), "nan_half.safetensors": one(lambda v: spoilt(torch.nan)(v).half()),
    "scalars.safetensors": each(lambda v: v.reshape(-1)[0]), "flat.safetensors": each(lambda v: v.reshape(-1)), "no_rows.safetensors": each(lambda v: v[:0]),
    "four_axes.safetensors": each(lambda v: v[None, None]), "double.safetensors": each(lambda v: v.double()),  # this one is good
}
MODULES = ANY | {
    "other_block.safetensors": tensors(lambda good: {k.replace("attention_blocks.1.to_q", "attention_blocks.50000.to_q"): v for k, v in good.items()}),
    "more_block.safetensors": tensors(lambda good: {**good, "down_blocks.0.motion_modules.0.temporal_transformer." + BLOCK + "attention_blocks.50000.to_q.weight": torch.ones(8, 8)}),
    "far_level.safetensors": tensors(lambda good: {k.replace("down_blocks.0", "down_blocks.99999"): v for k, v in good.items()}),
    "wide_norm.safetensors": one(lambda v: torch.ones(200000), "norm.weight"), **{
        f"width_{c}.safetensors": tensors(lambda good, c=c: {k: v[tuple(slice(0, c * (n // 64) if n >= 64 else n) for n in v.shape)] for k, v in good.items()}) for c in (8, 10, 40, 60)},
    "no_middle.safetensors": tensors(lambda good: {k: v for k, v in good.items() if "up_blocks" not in k}), "lacks_one.safetensors": tensors(lambda good: dict(list(good.items())[1:])),
    "positions_alone.safetensors": tensors(lambda good: {k: v for k, v in good.items() if k.endswith(".pe")}),
    "no_positions.safetensors": tensors(lambda good: {k: v for k, v in good.items() if not k.endswith(".pe")}),  # good
    "long_positions.safetensors": tensors(lambda good: {k: torch.zeros(1, 10**5, 8) if k.endswith(".pe") else v for k, v in good.items()}),
    "flat_positions.safetensors": tensors(lambda good: {k: torch.zeros(5) if k.endswith(".pe") else v for k, v in good.items()}),
    "a_lora.safetensors": tensors(lambda good: {k.replace("to_q.weight", "processor.to_q_lora.up.weight"): v for k, v in good.items()}),
}


IP_ADAPTERS = ANY | {
    "lacks_one.safetensors": tensors(lambda good: dict(list(good.items())[:-1])), "projection_alone.safetensors": tensors(lambda good: {k: v for k, v in good.items() if "image_proj" in k}),
    "layers_alone.safetensors": tensors(lambda good: {k: v for k, v in good.items() if "image_proj" not in k}),
    "far_layer.safetensors": tensors(lambda good: {k.replace("layers.3", "layers.99999"): v for k, v in good.items()}),
    "far_number.safetensors": tensors(lambda good: {k.replace("ip_adapter.1.", "ip_adapter.99999."): v for k, v in good.items()}),
    "even.safetensors": tensors(lambda good: {k.replace("ip_adapter.1.", "ip_adapter.2."): v for k, v in good.items()}),
    "wide_norm.safetensors": one(lambda v: torch.ones(200000), "norm_out.weight"), "long_latents.safetensors": one(lambda v: torch.ones(1, 200000, v.shape[2]), "latents"),
    "face_id.safetensors": tensors(lambda good: {**good, "ip_adapter.0.to_q_lora.down.weight": torch.ones(4, 32)}),
    "parts_of_texts.bin": pickled(lambda good: {"image_proj": "text", "ip_adapter": ["text"]}), "half_parts.bin": pickled(lambda good: {"image_proj": good, "ip_adapter": None}),
    "parts_in_parts.bin": pickled(lambda good: {"image_proj": {"image_proj": good}, "ip_adapter": {"ip_adapter": good}}), "numbered_parts.bin": pickled(
        lambda good: {"image_proj": dict(enumerate(good.values())), "ip_adapter": {}}),
    "published.bin": pickled(lambda good: {part: {k.removeprefix(f"{part}."): v for k, v in good.items() if k.startswith(part)} for part in ("image_proj", "ip_adapter")}),  # good
}


def renamed(**names):
    """The pairs' endings under other names."""
    def change(good):
        out = {}
        for k, v in good.items():
            for mine, other in names.items():
                k = k.replace(f"_lora.{mine}.weight", other)
            out[k] = v
        return out
    return tensors(change)


LORAS = ANY | {
    "lokr.safetensors": renamed(down=".lokr_w1", up=".lokr_w2"),
    "loha.safetensors": renamed(down=".hada_w1_a", up=".hada_w1_b"), "oft.safetensors": renamed(down=".oft_blocks", up=".oft_diag"),
    "diff.safetensors": renamed(down=".diff", up=".diff_b"), "set_weight.safetensors": renamed(down=".set_weight", up=".alpha"), "reshape.safetensors": renamed(up=".reshape_weight"),
    "dora.safetensors": renamed(down=".dora_scale"), "downs.safetensors": tensors(lambda good: {k: v for k, v in good.items() if "down" in k}), "ups.safetensors": tensors(
        lambda good: {k: v for k, v in good.items() if "up.weight" in k}), "other_rank.safetensors": one(lambda v: torch.ones(v.shape[0], 9), "up.weight"),
    "wide.safetensors": each(lambda v: v.repeat_interleave(2, 0 if v.shape[0] > v.shape[1] else 1)), "turned.safetensors": each(lambda v: v.T),
    "alphas.safetensors": tensors(lambda good: {**good, **{k.replace("_lora.up.weight", "_lora.alpha"): torch.tensor(float("nan")) for k in good if "up.weight" in k}}),
    "far.safetensors": tensors(lambda good: {k.replace("blocks.0.motion", "blocks.7.motion"): v for k, v in good.items() if "blocks.0.motion" in k}),
    "rank_0.safetensors": each(lambda v: v[:0] if v.shape[0] < v.shape[1] else v[:, :0]),
}
I2V_ADAPTERS = ANY | {
    "lacks_one.safetensors": tensors(lambda good: dict(list(good.items())[1:])), "queries_alone.safetensors": tensors(lambda good: {k: v for k, v in good.items() if "to_q" in k}),
    "far_level.safetensors": tensors(lambda good: {k.replace("down_blocks.0", "down_blocks.99999"): v for k, v in good.items()}),
    "far_block.safetensors": tensors(lambda good: {k.replace("transformer_blocks.0", "transformer_blocks.99"): v for k, v in good.items()}),
    "wide.safetensors": each(lambda v: v.repeat(*[2] * v.ndim)), "a_row.safetensors": one(lambda v: torch.ones(200000, 1), "to_q_ff"),
}
REWARDS = ANY | {
    "lacks_one.safetensors": tensors(lambda good: {k: v for k, v in good.items() if k != "mlp.layers.7.bias"}), "readout_alone.safetensors": tensors(
        lambda good: {k: v for k, v in good.items() if k.startswith("mlp.")}),
    "far_block.safetensors": tensors(lambda good: {k.replace("blocks.0", "blocks.99999"): v for k, v in good.items()}), "long_text.safetensors": one(
        lambda v: torch.ones(200000, v.shape[1]), "position_embeddings"), "many_places.safetensors": one(lambda v: torch.ones(1, 10**5, v.shape[2]), "pos_embed"),
    "wide.safetensors": one(lambda v: torch.ones(64 * 5000, 64), "mlp.fc1.weight"), "more_words.safetensors": one(lambda v: torch.cat([v, v]), "word_embeddings"),
    "big_patches.safetensors": one(lambda v: torch.ones(*v.shape[:2], 1, 3000), "patch_embed.proj.weight"), "whole_clip.safetensors": tensors(
        lambda good: {"text_model.encoder.layers.0.mlp.fc1.weight": torch.ones(8, 64), "vision_model.encoder.layers.0.mlp.fc1.weight": torch.ones(8, 64)}),
    **{f"{name}_open_clip.safetensors": tensors(lambda good, w=w, p=p: {f"{part}transformer.resblocks.0.attn.in_proj_weight": w.clone() for part in ("", "visual.")} | {
        "visual.proj": p.clone(), "text_projection": p.clone()})
       for name, w, p in (("half", torch.ones(7, 3), torch.ones(3, 3)), ("flat", torch.ones(6, 3), torch.ones(5)), ("scalar", torch.ones(()), torch.ones(3, 3)))},
}
SPARSE_CTRLS = ANY | {
    "lacks_one.safetensors": tensors(lambda good: dict(list(good.items())[1:])), "far_level.safetensors": tensors(
        lambda good: {k.replace("down_blocks.0", "down_blocks.99999"): v for k, v in good.items()}),
    "wide_norm.safetensors": one(lambda v: torch.ones(200000), "temporal_transformer.norm.weight"), "wide_text.safetensors": one(
        lambda v: torch.ones(v.shape[0], 200000), "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"),
    "no_pictures.safetensors": tensors(lambda good: {k: v for k, v in good.items() if "cond_embedding" not in k}),
    "no_motion.safetensors": tensors(lambda good: {k: v for k, v in good.items() if "motion_modules" not in k}),
    "wrapped_text.ckpt": pickled(lambda good: {"controlnet": "text"}), "wrapped_twice.ckpt": pickled(lambda good: {"controlnet": {"controlnet": good}, "epoch": 1}),
    "wrapped.ckpt": pickled(lambda good: {"controlnet": good, "epoch": 1}),  # good
}
DYNAMICRAFTERS = ANY | {
    "lacks_one.safetensors": tensors(lambda good: dict(list(good.items())[1:])), "far_block.safetensors": tensors(
        lambda good: {k.replace("input_blocks.1.", "input_blocks.99999."): v for k, v in good.items()}),
    "wide_norm.safetensors": one(lambda v: torch.ones(200000), "init_attn.0.norm.weight"), "wide_text.safetensors": one(
        lambda v: torch.ones(v.shape[0], 200000), "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"),
    "wide_tokens.safetensors": one(lambda v: torch.ones(v.shape[0], 200000), "attn2.to_k_ip"),
    "many_tokens.safetensors": one(lambda v: torch.ones(1, 100000, 64), "image_proj_model.latents"),
    "no_projection.safetensors": tensors(lambda good: {k: v for k, v in good.items() if "image_proj" not in k}),
    "no_motion.safetensors": tensors(lambda good: {k: v for k, v in good.items() if "temopral" not in k}),
    "odd_scale.safetensors": one(lambda v: v * 0.5, "scale_arr"), "scale_of_text.safetensors": one(lambda v: torch.full((3,), torch.nan), "scale_arr"),
    "toon.safetensors": tensors(lambda good: {**good, "first_stage_model.decoder.mid.attn_refine.weight": torch.zeros(1)}),
    "half_a_vae.safetensors": tensors(lambda good: {**good, "first_stage_model.decoder.conv_in.weight": torch.zeros(1)}),
    "half_a_text.safetensors": tensors(lambda good: {**good, "cond_stage_model.model.ln_final.weight": torch.zeros(1)}),
    "half_a_tower.safetensors": tensors(lambda good: {**good, "embedder.model.visual.proj": torch.zeros(1)}),
    "of_text.ckpt": pickled(lambda good: {"state_dict": "text"}), "of_code.ckpt": pickled(lambda good: {"state_dict": {**good, "callback": print}}),
    "official.ckpt": pickled(lambda good: {"state_dict": good, "epoch": 1}), "deepspeed.ckpt": pickled(lambda good: {"module": {f"_forward_module.{k}": v for k, v in good.items()}}),  # good
}
TAGGERS = {  # {folder: {file: bytes}}
    "no_weights": {"config.json": b"{}"}, "broken": {"config.json": b"{", "model.safetensors": b"", "tokenizer.json": b"["}, "a_list": {"config.json": b"[1]"},
    "no_text": {"config.json": b"\xff\x00"}, "unknown": {"config.json": b'{"model_type": "?"}', "model.safetensors": header(58)},
    "nameless": {"config.json": b'{"model_type": "bert", "id2label": {}}', "model.safetensors": header(2**62), "tokenizer.json": b"{}"},
    "pickled": {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": pickle.dumps(print)},
    "of_its_own": {"config.json": b'{"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModelForTokenClassification": "code.M"}}', "code.py": b"raise SystemExit"},
}
