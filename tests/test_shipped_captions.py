"""Do the shipped checkpoints write what they have always written, to the letter?"""

import pytest

from prunecap_lib import Captioner
from prunecap_lib.datasets.scenes import make_scenes

# For the first pictures of Scenes' test split; photos-lite0 has never seen a drawing, and is held to its words alike.
GREEDY = {
    "scenes-vit": [
        ("four yellow chairs below three small purple trees", -5.4157),
        ("a group of four blue balloons next to a green dog", -5.8739),
        ("a yellow flower to the left of two green cars", -6.36),
        ("four purple dogs below two red trees", -6.2335)],
    "scenes-convnext": [
        ("three small purple trees below three yellow chairs", -5.7639),
        ("three blue balloons next to a green dog", -3.0776),
        ("a yellow flower to the right of a green car", -4.0574),
        ("four purple dogs are above four red trees", -5.8409)],
    "photos-lite0": [
        ("four people are standing around a group of people", -14.0138),
        ("a group of people are playing with a colorful toy", -12.0888),
        ("a little boy is playing on a yellow toy", -11.8867),
        ("a group of people are standing on a snowboard", -11.2199)],
}
BEAM = {"scenes-vit": "four yellow chairs below three small purple trees on the beach",
        "scenes-convnext": "a group of three small purple trees below three yellow chairs",
        "photos-lite0": "a group of people stand in front of a group of people"}


@pytest.mark.parametrize("name", GREEDY)
def test_shipped_checkpoints_write_what_they_always_wrote(name):
    captioner = Captioner.load(name).double()  # no last bit decides
    images = captioner.preprocess([scene.image for scene in make_scenes(4, split="test")])
    written = captioner.generate(images)
    assert [caption.text for caption in written] == [text for text, _ in GREEDY[name]]
    assert [caption.log_prob for caption in written] == pytest.approx([log_prob for _, log_prob in GREEDY[name]],
                                                                      abs=1e-3)
    assert captioner.generate(images[:1], method="beam")[0].text == BEAM[name]
