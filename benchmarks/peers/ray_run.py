"""Run one of the Ray Serve peers on a Ray of its own until Ctrl-C: `python ray_run.py app:app PORT`."""

import importlib
import signal
import sys
import tempfile

import ray
from ray import serve


def main(target: str, port: int) -> None:
    module, name = target.split(":")
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        ray.init(address="local", _temp_dir=folder, include_dashboard=False, logging_level="WARNING")
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(getattr(importlib.import_module(module), name))
            signal.pause()
        except KeyboardInterrupt:
            serve.shutdown()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
