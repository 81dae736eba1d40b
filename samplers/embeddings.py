"""Whether a prompt's embeddings are those of a model."""


def check_width(model, conditioning, who: str, name: str) -> None:
    """Raises ValueError unless each entry of the CONDITIONING is as wide as the model's cross-attention reads it. name: of the node's input."""
    wide = model.model.model_config.unet_config.get("context_dim")
    for c, _ in conditioning:
        if isinstance(wide, int) and c.shape[-1] != wide:
            raise ValueError(f"{who}: this {type(model.model.model_config).__name__} model reads embeddings of width {wide}, {name!r} has {c.shape[-1]}. "
                             f"Encode the prompt with the CLIP of the same checkpoint.")
