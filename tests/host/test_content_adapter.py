"""IP-Adapters on the real server, in the host's ordinary and in its dynamic mode: both containers, a weight of 0, wrong files, and the same bits afterwards."""
import pytest
import torch
from firstframe.demo.cli import outputs
from firstframe.demo.cli.server import PACK, GraphError, Server
from firstframe.tests import adapter_files as files
from firstframe.tests import graphs
from firstframe.tests import tiny_models as tiny
from firstframe.tests.i2v_adapter_files import whole_unet
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
        torch.save(whole_unet(demo, files.adapter(demo, "plus")), folder / "whole.pth")
        (server.base / "models" / "animatediff_models").mkdir(exist_ok=True)
        torch.save(files.nested(files.adapter(demo)), server.base / "models" / "animatediff_models" / "adapter.bin")
        yield server


@pytest.fixture(scope="module")
def picture(server):
    return server.upload_image(PACK / "demo" / "example.png")


def bits(server, graph) -> bytes:
    return b"".join(f.tobytes() for f in outputs.read_webp(server.fetch(server.run(graph)["save"]["images"][0]), 8.0)[0])


def content(picture: str, name: str, projection: str | None = None, **options) -> dict:
    graph = graphs.content_adapter(picture, **options)
    graph["adapter"]["inputs"] |= {"content_adapter": name} | ({"image_projection": projection} if projection else {})
    return graph


def test_every_kind_and_container(server, picture):
    plain = bits(server, graphs.plain())
    clips = {kind: bits(server, content(picture, f"{kind}.safetensors")) for kind in ("plain", "plus", "full")}
    assert len({plain, *clips.values()}) == 4
    assert all(bits(server, content(picture, f"{kind}.bin")) == clip for kind, clip in clips.items())
    assert bits(server, content(picture, "plus.bin", weight=0.0)) == plain == bits(server, graphs.plain())


def test_the_layers_in_a_whole_unet(server, picture):
    """The projection is in another file, with which it is the adapter of that file's kind."""
    clip = bits(server, content(picture, "plus.safetensors"))
    assert bits(server, content(picture, "whole.pth", "plus.bin")) == clip == bits(server, content(picture, "plus.bin", "from the same file"))


@pytest.mark.parametrize("name, options, said", [
    ("whole.pth", {}, "'whole.pth', found one without an image projection. Choose a file that has it as the image projection: ip-adapter-plus_sd15"),
    ("whole.pth", {"projection": "plain.bin"}, "'plain.bin', found an image projection that makes 4 tokens of a picture .plain., 64 wide, for layers that take 16 tokens"),
    ("sdxl.safetensors", {}, "Apply Content-Adapter: 'sdxl.safetensors' does not fit this FirstFrameDemo model"),
    ("plus.bin", {"hidden_size": 16}, "'plus.bin' takes image features that are 32 wide .* this CLIP_VISION gives 16")])
def test_what_does_not_fit_is_named(server, picture, name, options, said):
    with pytest.raises(GraphError, match=said):
        server.run(content(picture, name, **options))


def test_in_the_folder_of_motion_modules_it_is_named(server):
    with pytest.raises(GraphError, match="Load Motion Module expected .* in 'adapter.bin', found an IP-Adapter. IP-Adapters belong into models/ipadapter"):
        server.run(graphs.motion("adapter.bin"))
