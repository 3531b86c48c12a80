hold(check_temperature, attention_at, wrong={
    "no effect": lambda q, k, v, temperature: attention(q, k, v),
    "queries and keys": lambda q, k, v, temperature: attention(q / temperature, k / temperature, v),
    "its square": lambda q, k, v, temperature: attention(q / temperature**2, k, v),
    "its root": lambda q, k, v, temperature: attention(q / temperature**0.5, k, v),
    "times, not by": lambda q, k, v, temperature: attention(q * temperature, k, v),
    "the output of temperature 1": lambda q, k, v, temperature: (attention(q, k, v)[0],
                                                                attention(q / temperature, k, v)[1]),
    "the values, too": lambda q, k, v, temperature: attention(q / temperature, k, v / temperature),
    "weights alone": lambda q, k, v, temperature: attention(q / temperature, k, v)[1],
})


def hides(q, k, v, kept):
    mask = torch.ones(len(q), len(k), dtype=torch.bool)
    mask[:, kept] = False
    return attention(q, k, v, mask)


hold(check_masked, masked_look, wrong={
    "all tokens": lambda q, k, v, kept: attention(q, k, v),
    "gathered": lambda q, k, v, kept: attention(q, k[kept], v[kept]),
    "the output alone": lambda q, k, v, kept: masked_look(q, k, v, kept)[0],
    "the others": hides,
    "zeros in place of keys": lambda q, k, v, kept: attention(
        q, torch.zeros_like(k).index_copy(0, torch.tensor(kept), k[kept]), v),
    "weights that are not scaled again": lambda q, k, v, kept: (
        lambda w: (w @ v, w))(attention(q, k, v)[1] * torch.isin(torch.arange(len(k)), torch.tensor(kept))),
})

hold(check_costs, cost_shared, cost_copied, wrong={
    "exchanged": (cost_copied, cost_shared),
    "the same": (cost_shared, cost_shared),
    "without the output's matrix": (lambda R, T, N, D: cost_shared(R, T, N, D) - R * T * D * D,
                                    lambda R, T, N, D: cost_copied(R, T, N, D) - R * T * D * D),
    "operations, not multiply-adds": (lambda *sizes: 2 * cost_shared(*sizes), lambda *sizes: 2 * cost_copied(*sizes)),
})
