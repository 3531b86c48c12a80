hold(check_gain, gain, wrong={
    "the part's own": lambda p, s: s,
    "the mean": lambda p, s: (1 - p) + p * s,
    "the time": lambda p, s: (1 - p) + p / s,
    "p and 1 - p exchanged": lambda p, s: gain(1 - p, s),
})

hold(check_keep_for, keep_for, wrong={
    "a half": lambda *_: 0.5,
    "the smallest": lambda share, N, C, depth: min(
        (k / 100 for k in range(1, 101) if 1 / bound(N, C, depth, k / 100) <= share), default=None),
    "never None": lambda *given: keep_for(*given) or 0.01,
    "in steps of a tenth": lambda share, N, C, depth: max(
        (k / 10 for k in range(1, 11) if 1 / bound(N, C, depth, k / 10) <= share), default=None),
    "tokens, not operations": lambda share, N, C, depth: max(
        (k / 100 for k in range(1, 101)
         if sum(tokens_by_block(N, depth, k / 100)) / (depth * (N + 1)) <= share), default=None),
    "the share": lambda share, *_: share,
})
assert check_keep_for(lambda *given: None if (rate := keep_for(*given)) is None else round(rate * 100) * 0.01
                      ) == "right"

hold(check_batch_for, batch_for, wrong={
    "one": lambda *_: 1,
    "very many": lambda *_: 10_000,
    "one more": lambda *given: batch_for(*given) + 1,
    "one fewer": lambda *given: batch_for(*given) - 1,
    "a fraction": lambda *given: batch_for(*given) - 0.5,
    "fewer than none": lambda *_: -1,
})
