"""The real page in a real browser: the workflows open whole, the nodes explain themselves, the Run button makes a clip that can be seen."""
import json
import re
import time
import urllib.parse

import pytest
from firstframe.demo.cli import outputs, workflow
from firstframe.demo.cli.server import PACK
from firstframe.demo.templates import files
from firstframe.tests import workflows
from firstframe.tests.browser import chromium

if not chromium.find():
    pytest.skip("The page is not tested: there is no Chromium or Chrome on the PATH (on Debian: apt-get install chromium; elsewhere set CHROMIUM to its program).",
                allow_module_level=True)

SHOTS = PACK / "out" / "screenshots"
SAVED = ("id", "type", "title", "pos", "mode", "widgets_values")  # the rest belongs to the page: drawing order, sizes of previews


@pytest.fixture(scope="module")
def page(host):
    host.upload_image(workflows.PICTURE)
    # The first visit begins with a dialog over the canvas, and the map of the graph lies over the results.
    host.post("/api/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
    with chromium.Page(host.url) as page:
        page.until("app.graph && app.canvas && LiteGraph.registered_node_types['PCFAPatch'] && true", 240)
        yield page


@pytest.fixture(autouse=True)
def nothing_uncaught(page):
    before = len(page.errors)
    yield
    assert page.errors[before:] == []


def open_file(page, ui: dict, name: str) -> None:
    """As if the file was dropped on the canvas of a page that has shown no other: it keeps pictures by the numbers of nodes."""
    page.evaluate("(app.clean(), true)")
    page.evaluate(f"await app.handleFile(new File([{json.dumps(json.dumps(ui))}], {json.dumps(name)}, {{type: 'application/json'}}))")
    page.until(f"app.graph.nodes.length === {len(ui['nodes'])}")


def complaints(page) -> list[str]:
    """The messages that lie over the canvas, after a moment in which they can appear."""
    time.sleep(1.5)
    return page.evaluate("[...document.querySelectorAll('[role=dialog],[role=alert],[role=status]')].map(e => e.innerText.trim()).filter(Boolean)")


def on_screen(page, node: str, offset: str) -> list:
    """Window coordinates of a point of a node; both are JavaScript, offset may use n (the node)."""
    return page.evaluate(f"""(() => {{
        const n = {node}, [x, y] = {offset}, canvas = app.canvas.canvas.getBoundingClientRect();
        const p = app.canvas.ds.convertOffsetToCanvas([n.pos[0] + x, n.pos[1] + y]);
        return [p[0] + canvas.left, p[1] + canvas.top];
    }})()""")


@pytest.mark.parametrize("path", workflows.ALL, ids=workflows.name)
def test_it_opens_whole(page, path):
    ui = workflow.load(path)
    open_file(page, ui, path.name)
    assert page.evaluate("app.graph.nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)") == []
    named = [n["widgets_values"][0] for n in ui["nodes"] if n["type"] in (*files.LOADERS, "LoadVideo") and workflow.runs(n)]
    missing = f"{named[0]} is missing" if len(named) == 1 else f"{len(named)} errors found"
    expected = missing if path in workflows.FOR_USERS else None  # the demo's server has none of SD1.5's files
    assert [text for text in complaints(page) if not (expected and text.startswith(expected))] == []
    again = page.evaluate("app.graph.serialize()")
    by_id = [{n["id"]: {k: n.get(k) for k in SAVED} for n in graph["nodes"]} for graph in (ui, again)]
    assert by_id[0] == by_id[1] and again["links"] == ui["links"] and again["version"] == 0.4
    assert [g["title"] for g in again["groups"]] == [g["title"] for g in ui["groups"]]
    needed = page.evaluate("app.graph.nodes.map(n => [n.type, ...n.size, ...n.computeSize()])")
    # Load Video's least size follows the size that it has, so that its player keeps its proportions
    assert [found for found in needed if found[0] != "LoadVideo" and (found[1] < found[3] or found[2] < found[4])] == []
    assert "What to change first" in page.evaluate("document.body.innerText")  # the note is drawn, not only kept


@pytest.mark.parametrize("path", workflows.FOR_USERS, ids=workflows.name)
def test_as_a_template_it_is_readable_at_once(page, path):
    page.evaluate(f"await app.loadGraphData({json.dumps(workflow.load(path))}, true, true, {json.dumps(path.stem)}, {{openSource: 'template'}})")
    assert page.evaluate("app.canvas.ds.scale") > 0.62  # from 0.57 on the page draws the nodes' texts
    page.until("[...document.querySelectorAll('.tiptap')].some(e => e.innerText.includes('What to change first') && e.scrollHeight <= e.clientHeight)", 30)  # the note needs no scrolling
    page.screenshot(SHOTS / f"{path.stem}.png")


def test_an_unknown_node_would_be_seen(page):
    ui = workflow.load(workflows.FOR_DEMO[0])
    ui["nodes"][-1]["type"] = "FF_NoSuchNode"
    open_file(page, ui, "broken.json")
    assert page.evaluate("app.graph.nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)") == ["FF_NoSuchNode"]
    assert any("FF_NoSuchNode" in text for text in complaints(page))


def test_the_run_button_makes_a_clip_that_the_page_shows(page, host):
    path = next(p for p in workflows.FOR_DEMO if "(PCFA)" in p.name)
    open_file(page, workflow.load(path), path.name)
    saver = "app.graph.nodes.find(n => n.type === 'SaveAnimatedWEBP')"
    button = page.until("(b => b && [b.x + b.width / 3, b.y + b.height / 2])(document.querySelector('[data-testid=queue-button]')?.getBoundingClientRect())")
    before = set(host.get("/history"))
    page.click(*button)
    page.until(f"[...({saver}.imgs ?? [])].some(i => i.complete && i.naturalWidth > 0)", 300)
    end = time.monotonic() + 120
    while not (new := set(host.get("/history")) - before):  # the preview comes before the run is over
        assert time.monotonic() < end, "the page shows a result, and the server never finished"
        time.sleep(0.2)
    done, = new
    assert host.get(f"/history/{done}")[done]["status"]["status_str"] == "success"
    source, width, height = page.evaluate(f"(i => [i.src, i.naturalWidth, i.naturalHeight])({saver}.imgs[0])")
    assert (width, height) == (128, 128)
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(source).query))
    frames, _ = outputs.read_webp(host.fetch(query), 8.0)
    assert len(frames) == 16
    page.until("[...document.querySelectorAll('video')].some(v => v.videoWidth === 128)")  # Save Video shows its own
    page.until("!document.body.innerText.includes('Job completed')")
    page.screenshot(SHOTS / "PCFA.png")


def test_previews_cover_no_node(page, host):
    path = next(p for p in workflows.FOR_DEMO if "(PiLife)" in p.name)
    ui = workflows.change(workflow.load(path), host.object_info(), {("MotionAwareInversion", "steps"): 8})
    open_file(page, ui, path.name)
    page.evaluate("(await app.queuePrompt(0), true)")
    shown = "app.graph.nodes.find(n => n.type === %s)"
    for kind in ("MaskPreview", "MotionAwareInversion", "SaveAnimatedWEBP"):
        page.until(f"[...({shown % json.dumps(kind)}.imgs ?? [])].some(i => i.complete && i.naturalWidth > 0)", 300)
    page.until(f"{shown % json.dumps('SaveVideo')}.size[1] > {next(n['size'][1] for n in ui['nodes'] if n['type'] == 'SaveVideo')}", 60)
    for kind in ("FF_MotionTokens", "MotionAwareInversion", "NoiseClipper"):
        page.until(f"{shown % json.dumps(kind)}.widgets.some(w => w.name === 'shown_text' && w.value)")
    page.until("!document.body.innerText.includes('Job completed')")
    page.screenshot(SHOTS / "previews.png")
    assert covered(page, ui) == []


def covered(page, ui: dict) -> list:
    """Nodes that lie on another, and those that stand out of every box."""
    nodes = page.evaluate("app.graph.nodes.map(n => [n.type, n.pos[0], n.pos[1] - 30, n.pos[0] + n.size[0], n.pos[1] + n.size[1]])")
    found = [(a[0], b[0]) for i, a in enumerate(nodes) for b in nodes[:i] if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]]
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (g["bounding"] for g in ui["groups"])]
    return found + [kind for kind, a, b, c, d in nodes if kind != "MarkdownNote" and not any(x < a and y < b and c < r and d < s for x, y, r, s in boxes)]


def test_the_searchs_sheet_covers_no_node(page, host):
    path = next(p for p in workflows.FOR_DEMO if "best of 16" in p.name)
    ui = workflows.change(workflow.load(path), host.object_info(), {**workflows.SMALL, ("KSampler", "steps"): 1})
    open_file(page, ui, path.name)
    page.evaluate("(await app.queuePrompt(0), true)")
    page.until("[...(app.graph.nodes.find(n => n.type === 'FF_AnchorImageSearch').imgs ?? [])].some(i => i.complete && i.naturalWidth > 0)", 300)
    page.until("!document.body.innerText.includes('Job completed')")
    page.screenshot(SHOTS / "search.png")
    assert covered(page, ui) == []


def test_every_node_has_its_tooltips_and_its_help_page(page, host):
    ours = {i: spec for i, spec in host.object_info().items() if spec["python_module"].endswith("ComfyUI-FirstFrame")}
    assert "PCFAPatch" in ours
    for node_id, spec in ours.items():
        page.evaluate(f"""(() => {{
            app.graph.clear(); app.canvas.ds.scale = 1; app.canvas.ds.offset = [400, 300];
            const n = LiteGraph.createNode({json.dumps(node_id)}); app.graph.add(n); n.pos = [0, 0]; app.canvas.setDirty(true, true);
        }})()""")
        # a text box is no part of the canvas and has the browser's own tooltip, a list without choices (no reward model is there) has none
        drawn = "(app.graph.nodes[0].widgets ?? []).find(w => !w.element && w.options?.values?.length !== 0)"
        if page.evaluate(f"!!{drawn}"):  # CLIPScore has sockets alone
            widget = page.until(f"{drawn}.last_y && {drawn}.name")
            x, y = on_screen(page, "app.graph.nodes[0]", f"[n.size[0] / 2, {drawn}.last_y + 10]")
            page.move(x - 20, y)
            page.move(x, y)  # the tooltip follows when the mouse rests
            tip = page.until("[...document.querySelectorAll('.node-tooltip')].filter(e => getComputedStyle(e).display !== 'none').map(e => e.innerText)[0]")
            assert tip.split() == (spec["input"]["required"].get(widget) or spec["input"]["optional"][widget])[1]["tooltip"].split()
        page.evaluate("(app.canvas.selectNode(app.graph.nodes[0]), app.canvas.setDirty(true, true), true)")
        page.until("document.querySelector('[data-testid=info-button]')?.click() ?? true")
        help_page = (PACK / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
        sentence = re.sub(r"[*`]", "", help_page.split("\n\n")[1].split(".")[0].replace("\n", " "))
        page.until(f"document.body.innerText.replace(/\\s+/g, ' ').includes({json.dumps(sentence)})", 30)
    page.screenshot(SHOTS / "help.png")
