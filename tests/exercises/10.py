def by_caption(lengths, reference_lengths):
    return float(np.mean([brevity([length], [refs]) for length, refs in zip(lengths, reference_lengths)]))


hold(check_brevity, brevity, wrong={
    "caption by caption": by_caption,
    "the shortest reference": lambda lengths, refs: min(1.0, math.exp(1 - sum(map(min, refs)) / sum(lengths))),
    "the longer of two": lambda lengths, refs: min(1.0, math.exp(1 - sum(
        min(r, key=lambda n: (abs(n - length), -n)) for length, r in zip(lengths, refs)) / sum(lengths))),
    "without a limit": lambda lengths, refs: math.exp(1 - sum(
        min(r, key=lambda n: (abs(n - length), n)) for length, r in zip(lengths, refs)) / sum(lengths)),
    "none": lambda lengths, refs: 1.0,
})


def differences(a, b):
    return [a[key] - b[key] for key in a]


def separate(a, b, crosswise):
    (low_a, high_a), (low_b, high_b) = bootstrap_interval(list(a.values())), bootstrap_interval([b[key] for key in a])
    ends = (low_a - high_b, high_a - low_b) if crosswise else (low_a - low_b, high_a - high_b)
    return np.mean(differences(a, b)), *ends


hold(check_paired, paired, wrong={
    "in the dictionaries' order": lambda a, b: (
        lambda d: (np.mean(d), *bootstrap_interval(d)))([x - y for x, y in zip(a.values(), b.values())]),
    "no resampling": lambda a, b: (np.mean(differences(a, b)),) * 3,
    "least and most": lambda a, b: (np.mean(differences(a, b)), min(differences(a, b)), max(differences(a, b))),
    "the middle 95% of the pictures": lambda a, b: (np.mean(differences(a, b)),
                                                    *np.quantile(differences(a, b), (0.025, 0.975))),
    "ends of two intervals": lambda a, b: separate(a, b, crosswise=False),
    "ends of two intervals, crosswise": lambda a, b: separate(a, b, crosswise=True),
    "the other way round": lambda a, b: paired(b, a),
})

chosen = most_typical(test.references())
first = {key: (0, score) for key, score in cider["human"].items()}


def own_reference():
    texts = test.references()
    scores = per_image_cider(texts, {key: five[0] for key, five in texts.items()})
    return {key: (position, scores[key] + 1) for position, key in zip(list(range(5)) * len(scores), scores)}


hold(check_typical, lambda references: chosen, wrong={
    "always the first": lambda references: first,
    "any one": lambda references: {key: (i % 5, score) for i, (key, (_, score)) in enumerate(first.items())},
    "among its own references": lambda references: own_reference(),
    "one counted from 1": lambda references: {key: (position + 1, score) for key, (position, score) in chosen.items()},
    "the right captions, better scores": lambda references: {key: (position, score + 1)
                                                             for key, (position, score) in chosen.items()},
    "positions alone": lambda references: {key: position for key, (position, _) in chosen.items()},
})
