"""What does the whole thread look like? Train a small captioner with 30% of its tokens pruned, caption, draw, score.

    python tools/demo.py            under five minutes on two cores; a second run goes on from the trained model

Leaves in demo/: pruning.png (pictures before and after pruning), words.png (where each word looked), captions.txt,
and metrics.json.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import matplotlib

import chapters

matplotlib.use("Agg")

OUT = chapters.ROOT / "demo"
PRUNE_RATIO = 0.3
TEST_PICTURES = 200
DRAWN = 5


def main() -> None:
    from prunecap_lib.errors import CheckpointError, PrunecapError, TrainingStopped
    try:
        demo()
    except TrainingStopped as stopped:
        sys.exit(f"\nmake demo: {stopped}")
    except KeyboardInterrupt:
        sys.exit("\nmake demo: stopped; the same command goes on")
    except CheckpointError as error:
        sys.exit(f"make demo: error: {error}. Here: remove {OUT}, and run it again")
    except PrunecapError as error:
        sys.exit(f"make demo: error: {error}")


def demo() -> None:
    from safetensors.torch import save_file

    from prunecap_lib import Captioner, TrainConfig, train
    from prunecap_lib.datasets import open_dataset
    from prunecap_lib.evaluation import evaluate
    from prunecap_lib.provenance import write_json
    started = time.perf_counter()
    OUT.mkdir(exist_ok=True)
    # As captioners of photographs do, it starts from an encoder that can see already; the decoder starts from nothing.
    encoder = OUT / "encoder.safetensors"
    if not encoder.exists():
        partial = encoder.with_suffix(".partial")
        save_file(Captioner.load("scenes-convnext").encoder.state_dict(), partial)
        partial.replace(encoder)
    config = TrainConfig(dataset="scenes", encoder="convnext", encoder_weights=str(encoder), freeze_encoder=True,
                         prune_ratio=PRUNE_RATIO, limit=6_000, epochs=3, lr=3e-3, dropout=0.0, d_model=128, ffn=512,
                         captions_per_image=2, val_limit=200, log_every=10, out=str(OUT / "run"))
    say(started, f"training on {config.limit:,} drawn pictures, {PRUNE_RATIO:.0%} of the tokens pruned")
    captioner = train(config).captioner
    test = open_dataset("scenes", split="test", limit=TEST_PICTURES, size=captioner.config.image_size)
    say(started, f"captioning {len(test)} pictures it has not seen, and scoring the captions")
    report, captions = evaluate(captioner, test, progress=True)
    write_json(OUT / "metrics.json", report)
    lines = [f"{image_id}\t{caption.text}" for image_id, caption in captions.items()]
    (OUT / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    say(started, "drawing")
    draw(captioner, [test.image(i) for i in range(DRAWN)])
    for line in lines[:DRAWN]:
        print("   ", line.replace("\t", ": "))
    print(f"    CIDEr-D {report['scores']['CIDEr']:.2f}; the same captions dealt to other pictures "
          f"{report['CIDEr_shuffled']:.2f}")
    say(started, f"see {OUT.relative_to(Path.cwd()) if OUT.is_relative_to(Path.cwd()) else OUT}/")


def draw(captioner, pictures: list) -> None:
    """pruning.png for all pictures, words.png for the first."""
    from prunecap_lib.attention_maps import seen_part
    from prunecap_lib.plotting import describe_caption, draw_caption, draw_pruning
    captions = captioner.generate(pictures, prune_ratio=PRUNE_RATIO, return_attention=True)
    squares = [seen_part(picture, captioner.preprocessing) for picture in pictures]
    draw_pruning(squares, captions).savefig(
        OUT / "pruning.png", metadata={"Description": "Pictures before and after pruning; dropped cells are faded."})
    draw_caption(pictures[0], captions[0], captioner.preprocessing).savefig(
        OUT / "words.png", metadata={"Description": describe_caption(captions[0])})


def say(started: float, what: str) -> None:
    print(f"[{time.perf_counter() - started:4.0f} s] {what}", flush=True)


if __name__ == "__main__":
    main()
