"""Are rates, waiting and time left what a clock says?"""

import torch

from prunecap_lib.training.run_log import CLOCKS, ThroughputMonitor, peak_memory


def test_metrics_follow_the_clock():
    now = 0.0

    def batches():
        nonlocal now
        for _ in range(4):
            now += 1.0  # a second for the data
            yield None

    monitor = ThroughputMonitor(8, torch.device("cpu"), clock=lambda: now)
    found = []
    for i, _ in enumerate(monitor.watch(batches())):
        now += 3.0      # three for the step
        monitor.step()
        if i % 2:
            found.append(monitor.metrics(steps_left=10))
    for metrics in found:
        assert metrics["pictures_per_second"] == 2.0 and metrics["data_wait"] == 0.25
        assert metrics["seconds_left"] == 40.0 and metrics["memory_gib"] > 0.01
        assert metrics.keys() | {"seconds"} == set(CLOCKS)


def test_time_between_epochs_is_not_training():
    now = 0.0
    monitor = ThroughputMonitor(1, torch.device("cpu"), clock=lambda: now)
    now += 100.0  # a validation
    for _ in monitor.watch([None]):
        now += 2.0
        monitor.step()
        assert monitor.metrics(0)["pictures_per_second"] == 0.5


def test_memory_is_this_processs():
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(2**26)  # 256 MiB
    assert before < peak_memory(torch.device("cpu")) or before > held.nbytes
