hold(check_shift, shift, wrong={
    "no shift": lambda ids: (ids, ids, ids != PAD),
    "exchanged": lambda ids: (ids[:, 1:], ids[:, :-1], ids[:, 1:] != PAD),
    "inputs say what counts": lambda ids: (ids[:, :-1], ids[:, 1:], ids[:, :-1] != PAD),
    "everything counts": lambda ids: (ids[:, :-1], ids[:, 1:], torch.ones_like(ids[:, 1:], dtype=torch.bool)),
    "the end does not count": lambda ids: (ids[:, :-1], ids[:, 1:], (ids[:, 1:] != PAD) & (ids[:, 1:] != EOS)),
})

hold(check_size, decoder_size, wrong={
    "words only": lambda V, D, *rest: V * D,
    "not tied": lambda V, D, *rest: decoder_size(V, D, *rest) + V * D,
    "without the last norm": lambda V, D, *rest: decoder_size(V, D, *rest) - 2 * D,
    "without the output's bias": lambda V, D, *rest: decoder_size(V, D, *rest) - V,
    "one attention a layer": lambda V, D, layers, *rest: decoder_size(V, D, layers, *rest) - layers * 4 * (D * D + D),
})

hold(check_lowest, lowest_loss, wrong={
    "zero": lambda epsilon, V: 0.0,
    "the right word alone": lambda epsilon, V: -math.log(1 - epsilon + epsilon / V),
    "all of epsilon to the others": lambda epsilon, V: (
        -(1 - epsilon) * math.log(1 - epsilon) - (epsilon * math.log(epsilon / (V - 1)) if epsilon else 0)),
    "in bits": lambda epsilon, V: lowest_loss(epsilon, V) / math.log(2),
})
