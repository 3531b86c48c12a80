hold(check_rate_for, rate_for, wrong={
    "shared out": lambda left, times: 1 - (1 - left) / times,
    "divided": lambda left, times: left / times,
    "the power": lambda left, times: left**times,
    "what is left": lambda left, times: left,
})


def fused(x, scores, k, weights, last=True):
    kept, stay = keep(x, scores, k)
    rest = torch.ones(len(x), dtype=torch.bool)
    rest[stay] = False
    token = (weights(scores[rest])[:, None] * x[rest]).sum(dim=0, keepdim=True)
    return torch.cat([kept, token] if last else [token, kept])


def of_all(values):
    return values / values.sum()


hold(check_fuse, fuse, wrong={
    "the rest is lost": lambda x, scores, k: keep(x, scores, k)[0],
    "the plain mean": lambda x, scores, k: fused(x, scores, k, lambda values: torch.full_like(values, 1 / len(values))),
    "weights that do not sum to one": lambda x, scores, k: fused(x, scores, k, lambda values: values),
    "weights by softmax": lambda x, scores, k: fused(x, scores, k, lambda values: values.softmax(0)),
    "the mean first": lambda x, scores, k: fused(x, scores, k, of_all, last=False),
    "in the scores' order": lambda x, scores, k: torch.cat([x[scores.topk(k).indices], fuse(x, scores, k)[k:]]),
    "the mean of all": lambda x, scores, k: torch.cat([keep(x, scores, k)[0], x.mean(dim=0, keepdim=True)]),
})


def biased(q, k, v, bias, scale=True):
    return (q @ k.T / (q.shape[-1] ** 0.5 if scale else 1.0) + bias).softmax(dim=-1) @ v


hold(check_look, look, wrong={
    "all alike": lambda q, k, v, size: biased(q, k, v, 0),
    "the size itself": lambda q, k, v, size: biased(q, k, v, size),
    "its log to base 2": lambda q, k, v, size: biased(q, k, v, size.log2()),
    "unscaled": lambda q, k, v, size: biased(q, k, v, size.log(), scale=False),
    "values times size": lambda q, k, v, size: biased(q, k, v * size[:, None], 0),
    "log of one more": lambda q, k, v, size: biased(q, k, v, size.log1p()),
})
