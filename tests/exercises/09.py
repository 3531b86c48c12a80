hold(check_per_word, per_word, wrong={
    "of the whole caption": lambda log_prob, words: math.exp(log_prob),
    "its logarithm": lambda log_prob, words: log_prob / words,
    "a share of the probability": lambda log_prob, words: math.exp(log_prob) / words,
    "perplexity": lambda log_prob, words: math.exp(-log_prob / words),
    "one word too many": lambda log_prob, words: math.exp(log_prob / (words + 1)),
})


def cut_off(p, mass, inside):
    ranked = p.sort(descending=True)
    stays = inside(ranked.values, mass)
    kept = torch.zeros_like(p)
    kept[ranked.indices[stays]] = ranked.values[stays]
    return kept / kept.sum()


hold(check_nucleus, nucleus, wrong={
    "all words": lambda p, mass: p,
    "less than the mass": lambda p, mass: cut_off(p, mass, lambda values, mass: values.cumsum(-1) <= mass),
    "not scaled again": lambda p, mass: p * (nucleus(p, mass) > 0),
    "the best word": lambda p, mass: (p == p.max()).float(),
    "in ranked order": lambda p, mass: nucleus(p.sort(descending=True).values, mass),
    "words above a threshold": lambda p, mass: cut_off(p, mass, lambda values, mass: values > 1 - mass),
})


def greedy_search(table):
    beginning, extended = "", 0
    while beginning in table:
        word = max(table[beginning], key=table[beginning].get)
        beginning, extended = f"{beginning} {word}".strip(), extended + 1
    return beginning, extended


def exhaustive(table, told=None):
    waiting, extended, best = [(1.0, "")], 0, (0.0, "")
    while waiting:
        p, beginning = waiting.pop()
        if beginning not in table:
            best = max(best, (p, beginning))
            continue
        extended += 1
        waiting += [(p * q, f"{beginning} {word}".strip()) for word, q in table[beginning].items()]
    return best[1], extended if told is None else told


hold(check_best_first, best_first, wrong={
    "greedy": greedy_search,
    "all of them": exhaustive,
    "all of them, and told to be none": lambda table: exhaustive(table, told=0),
    "the caption alone": lambda table: best_first(table)[0],
    "exchanged": lambda table: best_first(table)[::-1],
})
