"""Runs a module of demo/ or benchmarks/ as a program:  python demo/run.py MODULE [ARGS]   (`cli.command --help`, `train.image_model`, `benchmarks.pcfa`).

The repository root may not stand on sys.path: its `nodes` folder would hide the host's nodes.py. So the checkout is
made importable as the bare package `firstframe` (without running its __init__.py, which needs a host), and MODULE is
imported as `firstframe.demo.MODULE` (or `firstframe.benchmarks...`). Every such module has `main(argv: list[str]) -> int | None`.
"""
import importlib
import sys
import types
from pathlib import Path

DEMO = Path(__file__).resolve().parent


def use_package() -> None:
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() not in (DEMO, DEMO.parent)]
    package = types.ModuleType("firstframe", "The checkout, as a package without code of its own.")
    package.__path__ = [str(DEMO.parent)]
    sys.modules["firstframe"] = package


def main():
    if len(sys.argv) < 2:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    use_package()
    name = f"firstframe.{'' if sys.argv[1].startswith('benchmarks.') else 'demo.'}{sys.argv[1]}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or not name.startswith(error.name):  # a package that MODULE itself needs
            raise
        print(f"There is no module {sys.argv[1]!r} in demo/ (looked for {name}).", file=sys.stderr)
        return 2
    return module.main(sys.argv[2:])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
