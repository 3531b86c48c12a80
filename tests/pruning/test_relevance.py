"""Is relevance the plain mean over what was written?"""

import torch
from close import assert_close

from prunecap_lib.pruning import relevance_score


def test_relevance_is_the_mean_over_written_words():
    layers, B, h, T, P, N = 2, 3, 4, 5, 2, 6
    weights = torch.rand(layers, B, h, T, P + N, generator=torch.Generator().manual_seed(0)).softmax(-1)
    lengths = [5, 1, 3]
    written = torch.arange(T) < torch.tensor(lengths)[:, None]
    scores = relevance_score(weights, written, P)
    assert scores.shape == (B, N)
    for b, length in enumerate(lengths):
        for n in range(N):
            received = [weights[layer, b, head, t, P + n].item()
                        for layer in range(layers) for head in range(h) for t in range(length)]
            assert_close(scores[b, n], torch.tensor(sum(received) / len(received)))
    alone = relevance_score(weights[:, 1:2], written[1:2], P)
    assert_close(alone[0], scores[1])
