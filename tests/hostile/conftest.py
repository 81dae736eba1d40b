"""One server for the hostile tests, with its cache, so that what stays good is made once; one thread, since everything in it is tiny."""
import pytest


@pytest.fixture(scope="session")
def server():
    """With a node for bad values, a tiny video model (wan.safetensors), adapters for the demo's model, a small ImageReward and a picture of 64x64 (small.png)."""
    import comfy.ops
    import torch
    from comfy.ldm.wan.model import WanModel
    from firstframe.demo.cli.server import PACK, Server
    from firstframe.tests import adapter_files, graphs, i2v_adapter_files, lvdm_files, reward_files, sparse_files, tiny_models
    from PIL import Image
    from safetensors.torch import save_file
    with Server(custom_nodes=[PACK / "tests" / "hostile" / "source_nodes"], environment={"OMP_NUM_THREADS": "1"}) as server:
        wan = WanModel(model_type="t2v", dim=128, ffn_dim=64, num_heads=1, num_layers=1, in_dim=16, out_dim=16, text_dim=4096, freq_dim=256, operations=comfy.ops.manual_cast)
        (server.base / "models" / "diffusion_models").mkdir(exist_ok=True)
        save_file({k: torch.zeros_like(v).half() for k, v in wan.state_dict().items()}, server.base / "models" / "diffusion_models" / "wan.safetensors")
        (server.base / "models" / "i2v_adapter").mkdir(exist_ok=True)
        save_file(i2v_adapter_files.i2v_adapter(tiny_models.model("demo")), server.base / "models" / "i2v_adapter" / "random.safetensors")
        (server.base / "models" / "ipadapter").mkdir(exist_ok=True)
        save_file(adapter_files.adapter(tiny_models.model("demo"), "plus"), server.base / "models" / "ipadapter" / graphs.ADAPTER)
        (server.base / "models" / "reward_models").mkdir(exist_ok=True)
        save_file(reward_files.image_reward(), server.base / "models" / "reward_models" / graphs.REWARD)
        reward_files.vocabulary(server.base / "models" / "reward_models")
        (server.base / "models" / "controlnet").mkdir(exist_ok=True)
        save_file(sparse_files.model("rgb", tiny_models.SHAPES["demo"][1]), server.base / "models" / "controlnet" / graphs.SPARSE)
        (server.base / "models" / "checkpoints").mkdir(exist_ok=True)
        save_file(lvdm_files.for_demo(), server.base / "models" / "checkpoints" / graphs.DYNAMI)
        save_file(lvdm_files.for_demo(version="VideoCrafter2 512"), server.base / "models" / "checkpoints" / graphs.VIDEO)
        Image.effect_noise((64, 64), 60).convert("RGB").save(server.base / "input" / "small.png")
        yield server


@pytest.fixture(scope="session")
def before(server):
    from firstframe.tests.hostile.verdict import plain_bits
    return plain_bits(server)
