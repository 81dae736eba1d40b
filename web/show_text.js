// Shows the text that a node of this pack reports (ui.PreviewText) in the node's own box; the page by itself does so for its own nodes only.
import { app } from "../../scripts/app.js";

const NAME = "shown_text";

function box(node) {
    const area = document.createElement("textarea");
    area.className = "comfy-multiline-input";
    area.readOnly = true;
    area.rows = 3;
    const widget = node.addDOMWidget(NAME, "customtext", area, {
        serialize: false,
        getMinHeight: () => 60,
        getValue: () => area.value,
        setValue: (text) => { area.value = text; },
    });
    widget.serialize = false; // saved workflows hold widget values by position, and this one is no input
    return widget;
}

app.registerExtension({
    name: "firstframe.show_text",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (!nodeData.category?.startsWith("FirstFrame/")) return;
        const { onExecuted } = nodeType.prototype;
        nodeType.prototype.onExecuted = function (output) {
            onExecuted?.apply(this, arguments);
            if (!output?.text) return;
            const widget = this.widgets?.find((w) => w.name === NAME) ?? box(this);
            widget.value = [output.text].flat().join("\n");
        };
    },
});
