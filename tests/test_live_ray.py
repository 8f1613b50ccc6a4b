"""A sweep on a real Ray cluster of several processes, one of which is killed in the middle: the ledger is that of one process."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import tiny

import refmodel
from refmodel.model.route import Route
from refmodel.numerics import NUMPY
from refmodel.sweep.engines import Local
from refmodel.sweep.probes.text import text_probe
from refmodel.sweep.windows import every_window, repeated

pytestmark = pytest.mark.live
LAYERS = 12
IDS = [5 + k * k % 200 for k in range(400)]


def killed_one(until: float, found: list[int]) -> None:
    """Kill the first worker process that is seen to run a subtree, a moment after it began."""
    while time.monotonic() < until and not found:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                parents = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if words.startswith(b"ray::subtree") and parents:
                time.sleep(0.3)
                os.kill(int(folder.name), signal.SIGKILL)
                found.append(int(folder.name))
                return
        time.sleep(0.05)


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_with_a_killed_worker_has_the_scores_of_one_process(tmp_path):
    ray = pytest.importorskip("ray", reason="no cluster is started: pip install 'refmodel[ray]'")
    from refmodel.sweep.ray_engine import OnRay

    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "llama", n_layer=LAYERS))
    probe = text_probe("nll", IDS, None, False)
    routes = [Route.identity(LAYERS), *(repeated(window, LAYERS) for window in every_window(LAYERS))]
    paths = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": paths})
    try:
        engine, killed = OnRay(model, "numpy"), []
        thread = threading.Thread(target=killed_one, args=(time.monotonic() + 120, killed))
        thread.start()
        found = dict(engine.run(probe, 0, probe.facts.questions, routes))
        thread.join()
        executions = engine.work.executions
    finally:
        ray.shutdown()
    assert killed, "no worker was seen at work, and none was killed"
    here = Local(model, NUMPY)
    alone = dict(here.run(probe, 0, probe.facts.questions, routes))
    assert {n: outcome.scores for n, outcome in found.items()} == {n: outcome.scores for n, outcome in alone.items()}
    assert executions >= here.work.executions
