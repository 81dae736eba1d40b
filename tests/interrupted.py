"""A run on the real server that is stopped in the middle. Import as `firstframe.tests.interrupted`."""
import threading
import time

from firstframe.demo.cli.protocol import GraphError


def run_interrupted(host, graph: dict, after: float) -> GraphError:
    """Interrupts the graph `after` seconds from its start; what the server said of it."""
    caught = []

    def run():
        try:
            host.run(graph)
        except GraphError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(after)
    host.interrupt()
    thread.join(60)
    error, = caught
    return error
