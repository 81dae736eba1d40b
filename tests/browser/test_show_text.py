"""The text that a node reports, in its own box on the real page; saved workflows stay as they were."""
import json

import pytest
from firstframe.tests import graphs
from firstframe.tests.browser import chromium

if not chromium.find():
    pytest.skip("The page is not tested: there is no Chromium or Chrome on the PATH.", allow_module_level=True)

SHOWN = "app.graph.nodes.find(n => n.type === 'FF_MotionTokens').widgets.find(w => w.name === 'shown_text')"


@pytest.fixture(scope="module")
def page(host):
    host.post("/api/settings", {"Comfy.TutorialCompleted": True})
    with chromium.Page(host.url) as page:
        page.until("app.graph && app.canvas && LiteGraph.registered_node_types['FF_MotionTokens'] && true", 240)
        yield page


def test_the_marked_prompt_is_shown_and_not_saved(page):
    graph = {"model": graphs.LOADERS["model"],
             "words": {"class_type": "FF_MotionTokens", "inputs": {"clip": ["model", 1], "text": "a red circle is rolling", "words": "", "tagger": "auto"}}}
    page.evaluate(f"await app.loadApiJson({json.dumps(graph)}, 'words.json')")
    page.until("app.graph.nodes.length === 2")
    values = "app.graph.serialize().nodes.find(n => n.type === 'FF_MotionTokens').widgets_values"
    before = page.evaluate(values)
    for text in ("a red circle is [[rolling]]", "a red [[circle]] is rolling"):  # the box is filled, then filled again
        page.evaluate("(await app.queuePrompt(0), true)")
        assert page.until(f"{SHOWN}?.value === {json.dumps(text)} && {SHOWN}.element.isConnected")
        page.evaluate("(app.graph.nodes.find(n => n.type === 'FF_MotionTokens').widgets.find(w => w.name === 'words').value = 'circle', true)")
    assert page.evaluate(values) == [v if v != "" else "circle" for v in before] and page.errors == []
