"""Do many processes caption a split as one does, picture by picture, whatever is drawn at random?"""

import json
import os
import subprocess
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from two_processes import run_two

from prunecap_lib import Captioner
from prunecap_lib.cli import main
from prunecap_lib.datasets import open_dataset
from prunecap_lib.distributed import processes
from prunecap_lib.evaluation import caption_split, evaluate, java, shuffled_captions, split


def as_process(monkeypatch, index, count):
    """This process takes the place of one of many, and gets only what it found itself."""
    here = SimpleNamespace(process_index=index, num_processes=count, is_main_process=index == 0,
                           main_process_first=nullcontext)
    monkeypatch.setattr(split, "processes", lambda: here)
    monkeypatch.setattr(split, "gather_sorted", lambda found: found)


def said(found):
    return {id: (caption.text, caption.log_prob, caption.kept.tolist()) for id, caption in found.items()}


def accuracy(captioner, dataset, **settings):
    """Token accuracy as ``evaluate`` counts it: over the words of all processes."""
    hits = [(positions[0], *split.first_captions_hit(captioner, dataset, positions, kept))
            for positions, kept in split.encode_split(captioner, dataset, **settings)]
    _, right, words = zip(*split.gather_sorted(hits), strict=True)
    return round(sum(right) / sum(words), 4)


@pytest.mark.parametrize("count, batch_size", [(2, 4), (3, 4), (2, 5), (5, 4), (16, 1)])
def test_the_shares_are_one_process_captions(monkeypatch, captioner, dataset, count, batch_size):
    whole = said(caption_split(captioner, dataset, batch_size=batch_size))
    shares = []
    for index in range(count):
        as_process(monkeypatch, index, count)
        shares.append(said(caption_split(captioner, dataset, batch_size=batch_size)))
    assert sum(map(len, shares)) == len(dataset)  # none twice
    assert {id: caption for share in shares for id, caption in share.items()} == whole


def test_noise_depends_on_the_seed_alone(captioner, dataset):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = said(caption_split(captioner, dataset, seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert said(caption_split(captioner, dataset, seed=3)) == first
    assert said(caption_split(captioner, dataset, seed=4)) != first


def test_captions_come_in_the_data_sets_order(captioner, dataset):
    assert list(caption_split(captioner, dataset, batch_size=4)) == dataset.image_ids


def test_nobody_is_dealt_their_own_caption():
    captions = {i: f"caption {i}" for i in range(50)}
    dealt = shuffled_captions(captions, seed=1)
    assert sorted(dealt.values()) == sorted(captions.values()) and all(dealt[i] != captions[i] for i in captions)
    assert dealt == shuffled_captions(captions, seed=1) != shuffled_captions(captions, seed=2)


def test_every_batch_has_noise_of_its_own(captioner, dataset):
    kept = [tuple(caption.kept.tolist()) for caption in caption_split(captioner, dataset, batch_size=1).values()]
    assert len(set(kept)) == len(kept)


def test_each_picture_is_encoded_once_and_each_caption_tokenized_once(monkeypatch, captioner, dataset):
    encoded, started, encode, run = [], [], captioner.encode, subprocess.run
    monkeypatch.setattr(captioner, "encode", lambda given, **more: encoded.append(len(given)) or encode(given, **more))
    monkeypatch.setattr(java.subprocess, "run", lambda *given, **more: started.append(given) or run(*given, **more))
    monkeypatch.setattr(java, "_tokenized", {})
    report, found = evaluate(captioner, dataset, metrics=("CIDEr",), batch_size=4, seed=1)
    assert sum(encoded) == len(dataset) and len(started) == 1
    assert said(found) == said(caption_split(captioner, dataset, batch_size=4, seed=1))
    assert report["token_accuracy"] == accuracy(captioner, dataset, batch_size=4, seed=1)


def work(told, folder):
    """What one of the processes does; what it prints goes to a file."""
    os.environ.update(told, PRUNECAP_DATA=folder)
    os.dup2(os.open(f"{folder}/printed-{told['RANK']}", os.O_CREAT | os.O_WRONLY), 1)
    if processes().process_index == 1:
        java.ptb_tokenize = None  # only the main process may score
    main(["evaluate", "--checkpoint", f"{folder}/model", "--dataset", "scenes", "--limit", "13", "--batch-size", "4",
          "--metrics", "CIDEr", "--no-progress", "--out", f"{folder}/many.json"])
    captioner, found = Captioner.load(f"{folder}/model"), {}
    for n in (13, 3):  # 3: one batch, and a process with nothing to do
        dataset = open_dataset("scenes", split="test", limit=n)
        found[n] = [caption.log_prob for caption in caption_split(captioner, dataset, batch_size=4).values()]
        found[f"accuracy {n}"] = accuracy(captioner, dataset, batch_size=4)
    captioner.encoder.set_schedule(None)
    found["cached"] = [caption.text for caption in caption_split(captioner, dataset, cache_features=True).values()]
    with open(f"{folder}/{processes().process_index}-of-{processes().num_processes}.json", "w") as file:
        json.dump(found, file)


@pytest.mark.slow
def test_two_real_processes_find_what_one_finds(captioner, dataset, tmp_path, capsys):
    captioner.save(tmp_path / "model")
    run_two(work, str(tmp_path))
    out, nothing = ((tmp_path / f"printed-{rank}").read_text() for rank in (0, 1))
    assert '"CIDEr"' in out and nothing == ""
    first, second = (json.loads((tmp_path / f"{i}-of-2.json").read_text()) for i in (0, 1))
    assert first == second
    loaded = Captioner.load(tmp_path / "model")
    for n in (13, 3):
        some = open_dataset("scenes", split="test", limit=n)
        assert first[str(n)] == [caption.log_prob for caption in caption_split(loaded, some, batch_size=4).values()]
        assert first[f"accuracy {n}"] == accuracy(loaded, some, batch_size=4)
    assert len(first["cached"]) == 3 and len(list((tmp_path / "features").glob("[!.]*"))) == 1

    main(["evaluate", "--checkpoint", str(tmp_path / "model"), "--dataset", "scenes", "--limit", "13", "--batch-size",
          "4", "--metrics", "CIDEr", "--no-progress", "--out", str(tmp_path / "one.json")])
    one, many = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "many"))
    assert (one.pop("provenance")["processes"], many.pop("provenance")["processes"]) == (1, 2)
    del one["seconds"], many["seconds"]
    assert one == many
