"""Does training with sharded weights (FSDP 2) give what training with whole ones gives, also after a stop?

    python stress/fsdp.py

Accelerate shards on GPUs only. Here two processes on the CPU are told that they are such, for its branch on the kind
of machine, and the rest is FSDP as it is. A small captioner is trained three times: with the weights whole in each
process, sharded, and sharded with a stop by SIGTERM in between. Losses and final weights are compared.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = ("whole", "sharded", "stopped")
FSDP = dict(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2", FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP",
            FSDP_TRANSFORMER_CLS_TO_WRAP="Mlp")
STOP_AT = 3  # batches seen: within the first epoch


def run(name: str, folder: Path) -> None:
    """One of two processes of a run."""
    import torch
    from accelerate.state import PartialState

    from prunecap_lib import TrainConfig, train
    from prunecap_lib.errors import TrainingStopped
    from prunecap_lib.training import run
    torch.set_num_threads(1)
    PartialState(cpu=True)
    if name != "whole":
        PartialState._shared_state["distributed_type"] = "MULTI_GPU"  # there is no public way to say so
    plain, seen = run.objective, []

    def watched(model, *rest):
        seen.append(sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in model.parameters()))
        if name == "stopped" and len(seen) == STOP_AT and not (config.folder / "checkpoint").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(model, *rest)

    run.objective = watched
    config = TrainConfig(encoder="vit", image_size=32, d_model=16, layers=1, heads=2, ffn=32, dropout=0.0, limit=64,
                         captions_per_image=2, batch_size=4, epochs=2, lr=3e-3, precision="fp32", val_limit=5,
                         keep_last=1, log_every=1, progress=False, out=str(folder / name))
    try:
        train(config)
    except TrainingStopped as stopped:
        print(stopped, flush=True)
    if int(os.environ["RANK"]) == 0:
        print(f"{name}: {seen[0]:,} parameters in this process", flush=True)


def compare(folder: Path) -> None:
    from safetensors.torch import load_file
    logs, weights = {}, {}
    for name in RUNS:
        lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        logs[name] = {(line["step"], key): line[key] for line in lines for key in ("loss", "val_loss") if key in line}
        weights[name] = load_file(next((folder / name / "last").iterdir()) / "model.safetensors")
    for one, other in (("whole", "sharded"), ("sharded", "stopped")):
        assert logs[one].keys() == logs[other].keys() and weights[one].keys() == weights[other].keys()
        losses = max(abs(logs[one][at] - logs[other][at]) for at in logs[one])
        apart = max(float((tensor - weights[other][key]).abs().max()) for key, tensor in weights[one].items())
        print(f"{one} and {other}: {len(logs[one])} losses differ by at most {losses:.1e}, weights by {apart:.1e}")
        assert losses < 1e-4 and apart < 1e-3, "not the same training"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        for run_name in (*RUNS, "stopped"):  # which goes on then
            subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
                            __file__, run_name, name], check=True, timeout=300,
                           env={**os.environ, "OMP_NUM_THREADS": "1", **({} if run_name == "whole" else FSDP)})
        compare(Path(name))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
