"""What keeps a file's tensor from being a weight. Looked at before anything is computed with it."""
import torch

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


def fault(v: torch.Tensor) -> str | None:
    """In a few words, for an error; None for dense, finite floating-point numbers that are all in the file."""
    if v.dtype not in FLOATS:
        return f"numbers of type {str(v.dtype).removeprefix('torch.')}"
    if v.is_meta or v.layout != torch.strided or v.untyped_storage().nbytes() < v.numel() * v.element_size():
        return "no number for each of its places"
    if v.numel() == 0:
        return f"no numbers (shape {list(v.shape)})"
    if not torch.stack((v.float() if v.element_size() == 1 else v).aminmax()).isfinite().all():  # without a mask as large as the weight
        return "NaN or infinity"
    return None
