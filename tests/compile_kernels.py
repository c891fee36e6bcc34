"""Compile the kernels that most tests run, by what a worker and the demo do before they begin: `make test` does it once."""

from __future__ import annotations

from engine.seeds import make_seeds
from floodwall.demo_screen import warm_up as warm_up_demo
from streams.worker import warm_up as warm_up_worker
from tests.engines import config_of

if __name__ == "__main__":
    warm_up_worker(config_of(), make_seeds(config_of()))
    warm_up_demo()
