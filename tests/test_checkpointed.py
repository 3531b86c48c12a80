"""Are gradients the same when blocks are computed again, and is less held meanwhile?"""

import pytest
import torch

from prunecap_lib import TrainConfig
from prunecap_lib.costs.forecast import training_memory
from prunecap_lib.costs.forecast.shapes import LiveBytes
from prunecap_lib.devices import checkpointed
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import Schedule
from prunecap_lib.training.batches import Batch
from prunecap_lib.training.build import new_captioner
from prunecap_lib.training.objective import objective
from prunecap_lib.training.setup import apply_compute_options


def gradients(captioner, config, images, ids):
    """One step's gradients by name, and the most bytes that were held."""
    captioner.zero_grad()
    torch.manual_seed(3)  # of dropout and the predictors' noise
    with LiveBytes() as live:
        objective(captioner, Batch(images, ids), config)[0].backward()
    return {name: p.grad.clone() for name, p in captioner.named_parameters()}, live.peak


@pytest.mark.parametrize("encoder, schedule", [
    ("vit", None), ("vit", Schedule((2,), (0.5,), "predictor")),
    ("vit", Schedule((1, 2), (0.7, 0.7), reduction="merge")), ("convnext", None),
    ("convnext", Schedule((3,), (0.5,), "predictor")),
    pytest.param("swin_tiny_patch4_window7_224", None, marks=pytest.mark.slow),
    ("poolformer_s12", None), ("resnet18", None),
], ids=str)
def test_same_gradients_for_less(encoder, schedule):
    torch.manual_seed(0)
    config = TrainConfig(encoder=encoder, d_model=16, layers=2, heads=2, ffn=64, dropout=0.3, schedule=schedule,
                         image_size=64, prune_ratio=0.0, checkpoint_activations=True)
    captioner = new_captioner(config, [["a cat on a mat"]]).train()
    if encoder == "resnet18":  # timm's own: its gradients are larger here than all that it keeps
        captioner.encoder.eval()
    images, ids = torch.randn(4, 3, 64, 64), torch.tensor([[1, 4, 5, 2], [1, 6, 2, 0]] * 4)
    kept, most = gradients(captioner, config, images, ids)
    apply_compute_options(captioner, config)
    again, least = gradients(captioner, config, images, ids)
    assert kept.keys() == again.keys() and all(torch.equal(kept[name], again[name]) for name in kept)
    assert least < most or encoder == "resnet18" and captioner.encoder.model.grad_checkpointing


def test_nothing_is_computed_again_without_gradients():
    called = []
    with torch.no_grad():
        checkpointed(True, called.append, torch.ones(1))
    assert len(called) == 1


def test_a_backbone_that_cannot_says_so():
    config = TrainConfig(encoder="tf_efficientnet_lite0@last_stage", image_size=32, d_model=16, heads=2, layers=1)
    captioner = new_captioner(config, [["a cat"]])
    del type(captioner.encoder.model).set_grad_checkpointing
    with pytest.raises(InputError, match="timm cannot compute its blocks again"):
        captioner.encoder.set_grad_checkpointing(True)


@pytest.mark.slow
def test_the_ledger_knows():
    config = TrainConfig(image_size=128, d_model=64, layers=1, heads=2, ffn=64)
    kept, again = (training_memory(TrainConfig(**{**vars(config), "checkpoint_activations": on}), vocabulary_size=100,
                                   batch_size=64) for on in (False, True))
    assert again < 0.6 * kept
