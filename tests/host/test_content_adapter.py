"""IP-Adapters on the real server, in the host's ordinary and in its dynamic mode: both containers, a weight of 0, wrong files, and the same bits afterwards."""
import pytest
import torch
from firstframe.demo.cli import outputs
from firstframe.demo.cli.server import PACK, GraphError, Server
from firstframe.tests import adapter_files as files
from firstframe.tests import graphs
from firstframe.tests import tiny_models as tiny
from safetensors.torch import save_file

SOURCES = PACK / "tests" / "hostile" / "source_nodes"


@pytest.fixture(scope="module", params=["ordinary", "dynamic"])
def server(request):
    """With random IP-Adapters in its folders, each under the name of its kind."""
    stand_in = request.param == "dynamic" and not torch.cuda.is_available()
    more = dict(custom_nodes=[SOURCES, PACK / "tests" / "dynamic_mode"], environment={"FIRSTFRAME_DYNAMIC_MODE": "1"}) if stand_in else dict(custom_nodes=[SOURCES])
    with Server(arguments=["--cache-none"] + ["--disable-dynamic-vram"] * (request.param == "ordinary"), **more) as server:
        folder, demo = server.base / "models" / "ipadapter", tiny.model("demo")
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("plain", "plus", "full"):
            save_file(files.adapter(demo, kind), folder / f"{kind}.safetensors")
            torch.save(files.nested(files.adapter(demo, kind)), folder / f"{kind}.bin")
        save_file(files.adapter(tiny.model("SDXL"), "plus"), folder / "sdxl.safetensors")
        (server.base / "models" / "animatediff_models").mkdir(exist_ok=True)
        torch.save(files.nested(files.adapter(demo)), server.base / "models" / "animatediff_models" / "adapter.bin")
        yield server


@pytest.fixture(scope="module")
def picture(server):
    return server.upload_image(PACK / "demo" / "example.png")


def bits(server, graph) -> bytes:
    return b"".join(f.tobytes() for f in outputs.read_webp(server.fetch(server.run(graph)["save"]["images"][0]), 8.0)[0])


def content(picture: str, name: str, **options) -> dict:
    graph = graphs.content_adapter(picture, **options)
    graph["adapter"]["inputs"]["content_adapter"] = name
    return graph


def test_every_kind_and_container(server, picture):
    plain = bits(server, graphs.plain())
    clips = {kind: bits(server, content(picture, f"{kind}.safetensors")) for kind in ("plain", "plus", "full")}
    assert len({plain, *clips.values()}) == 4
    assert all(bits(server, content(picture, f"{kind}.bin")) == clip for kind, clip in clips.items())
    assert bits(server, content(picture, "plus.bin", weight=0.0)) == plain == bits(server, graphs.plain())


@pytest.mark.parametrize("name, options, said", [
    ("sdxl.safetensors", {}, "Apply Content-Adapter: 'sdxl.safetensors' does not fit this FirstFrameDemo model"),
    ("plus.bin", {"hidden_size": 16}, "'plus.bin' takes image features that are 32 wide .* this CLIP_VISION gives 16")])
def test_what_does_not_fit_is_named(server, picture, name, options, said):
    with pytest.raises(GraphError, match=said):
        server.run(content(picture, name, **options))


def test_in_the_folder_of_motion_modules_it_is_named(server):
    with pytest.raises(GraphError, match="Load Motion Module expected .* in 'adapter.bin', found an IP-Adapter. IP-Adapters belong into models/ipadapter"):
        server.run(graphs.motion("adapter.bin"))
