"""What a node's entry in /object_info says about its sockets and widgets, in the order in which a saved graph holds them."""
from ..cli import workflow


class TemplateError(ValueError):
    """A template does not fit the host's nodes; the message says which and where."""


def is_widget(kind: str, options: dict) -> bool:
    return not options.get("forceInput") and (kind in workflow.WIDGET_TYPES or kind == workflow.DYNAMIC)


def sockets(spec: dict) -> list:
    """[(name, type, optional)] of the inputs that take links only."""
    required = spec["input"].get("required") or {}
    return [(name, kind, name not in required) for name, kind, options in workflow.inputs_of(spec["input"]) if not is_widget(kind, options)]


def widgets(spec: dict, values: dict) -> list:
    """[(name, type, optional, options, value)], dynamic choices with the widgets that they bring; values by name, "codec.crf" for those."""
    out, known = [], set()

    def take(entries: dict, prefix: str, optional: bool) -> None:
        required = entries.get("required") or {}
        for name, kind, options in workflow.inputs_of(entries):
            if not is_widget(kind, options):
                continue
            full, rest = prefix + name, optional or name not in required
            known.add(full)
            value = values.get(full, workflow.default_of(kind, options))
            out.append((full, kind, rest, options, value))
            if kind == workflow.DYNAMIC:
                chosen = [o for o in options.get("options", []) if o["key"] == value]
                take(chosen[0]["inputs"] if chosen else {}, f"{full}.", rest)

    take(spec["input"], "", False)
    if unknown := set(values) - known:
        raise TemplateError(f"{spec['name']} has no widget {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}.")
    return out


def is_upload(options: dict) -> bool:
    """A choice of files with the page's upload button below it."""
    return bool(options.get("image_upload") or options.get("video_upload"))


def is_seed(name: str, kind: str, options: dict) -> bool:
    """The page puts "control after generate" under these."""
    return bool(options.get("control_after_generate")) or kind == "INT" and name in workflow.SEEDS


def is_text_box(kind: str, options: dict) -> bool:
    return kind == "STRING" and bool(options.get("multiline"))


def saved(spec: dict, values: dict) -> list:
    """widgets_values: by position, with what the page adds of its own."""
    out = []
    for name, kind, _, options, value in widgets(spec, values):
        out.append(value)
        if is_seed(name, kind, options):
            out.append("fixed")
        elif is_upload(options):
            out.append("image")  # its upload button
    return out
