hold(check_lift, lift, wrong={
    "minus": lambda recall, k, n: recall - k / n,
    "over what is removed": lambda recall, k, n: recall / (1 - k / n) if k < n else 1.0,
    "the recall": lambda recall, k, n: recall,
    "times": lambda recall, k, n: recall * k / n,
    "n over k alone": lambda recall, k, n: n / k,
})


def holes(kept, distance=lambda d: d, join=lambda d: d.amin(dim=1), mean=lambda d: d.mean(dim=1)):
    places = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    return mean(join(distance(torch.cdist(places, places))[kept]))


places = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
hold(check_hole, hole, wrong={
    "none": lambda kept: torch.zeros(len(kept)),
    "the square": lambda kept: holes(kept, distance=lambda d: d**2),
    "along rows and columns": lambda kept: torch.cdist(places, places, p=1)[kept].amin(dim=1).mean(dim=1),
    "the mean over the kept": lambda kept: holes(kept, join=lambda d: d.mean(dim=1)),
    "the farthest cell": lambda kept: holes(kept, mean=lambda d: d.amax(dim=1)),
    "one number for all": lambda kept: hole(kept).mean(),
    "the first picture": lambda kept: hole(kept[:1]).expand(len(kept)),
})


def weighs_the_candidate(x, weights, k):
    x = F.normalize(x, dim=-1)
    likeness = x @ x.T
    nearest, chosen = torch.full((len(x),), -1.0), []
    for _ in range(k):
        gain = (torch.maximum(likeness, nearest) - nearest).sum(dim=1) * weights
        gain[chosen] = -torch.inf
        chosen.append(gain.argmax().item())
        nearest = torch.maximum(nearest, likeness[chosen[-1]])
    return chosen


hold(check_cover_weighted, cover_weighted, wrong={
    "the first": lambda x, weights, k: list(range(k)),
    "no weights": lambda x, weights, k: cover_most(x, k),
    "weights alone": lambda x, weights, k: weights.topk(k).indices.tolist(),
    "in picture order": lambda x, weights, k: sorted(cover_weighted(x, weights, k)),
    "the weight of the one that covers": weighs_the_candidate,
    "vectors times weights": lambda x, weights, k: cover_most(x * weights[:, None], k),
})
