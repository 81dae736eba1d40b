"""What the host says about a run: its errors in one sentence, and its progress messages."""
import asyncio
import json
import threading

import aiohttp


class GraphError(RuntimeError):
    """The host refused a graph or a node failed: node_id, class_type, message; interrupted when it was stopped on request."""

    def __init__(self, node_id, class_type, message, interrupted=False):
        super().__init__(f"Node {node_id} ({class_type}): {message}" if node_id is not None else message)
        self.node_id, self.class_type, self.message, self.interrupted = node_id, class_type, message, interrupted


def validation_error(answer: dict) -> GraphError:
    """The first complaint of POST /prompt: about a node if there is one, about the graph otherwise."""
    for node_id, node in (answer.get("node_errors") or {}).items():
        for e in node["errors"]:
            return GraphError(node_id, node.get("class_type"), ": ".join(filter(None, (e["message"], e.get("details")))))
    error = answer.get("error") or {"message": "the host refused the graph without a reason"}
    extra = error.get("extra_info") or {}
    if extra.get("node_id"):
        return GraphError(extra["node_id"], extra.get("class_type"), error["message"])
    return GraphError(None, None, ": ".join(filter(None, (error["message"], error.get("details")))))


def execution_error(messages) -> GraphError:
    """What stopped a run, from the messages that /history keeps."""
    for event, data in messages:
        if event == "execution_error":
            return GraphError(data["node_id"], data["node_type"], data["exception_message"].strip())
        if event == "execution_interrupted":
            return GraphError(data.get("node_id"), data.get("node_type"), "the run was interrupted", interrupted=True)
    return GraphError(None, None, "the host reports an error without naming a node")


def listen(url: str, client: str, on_progress, stop: threading.Event, ready: threading.Event) -> None:
    """Thread: on_progress(node id, value, total) from the websocket; total is 0 where a node has only begun."""
    async def follow():
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId={client}", max_msg_size=0) as ws:
            ready.set()
            async for message in ws:
                if message.type is not aiohttp.WSMsgType.TEXT:  # previews
                    continue
                event = json.loads(message.data)
                data = event.get("data") or {}
                if event["type"] == "executing" and data.get("node") is not None:
                    on_progress(str(data["node"]), 0, 0)
                elif event["type"] == "progress":
                    on_progress(str(data["node"]), data["value"], data["max"])

    async def until_stopped():
        task = asyncio.create_task(follow())
        while not (stop.is_set() or task.done()):
            await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # no progress display when it failed; the run is watched through /history

    try:
        asyncio.run(until_stopped())
    finally:
        ready.set()
