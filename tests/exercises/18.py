hold(check_put_back, put_back, wrong={
    "in the first cells": lambda values, kept, grid: torch.cat(
        [values, torch.zeros(grid[0] * grid[1] - len(values))]).view(grid),
    "rows and columns exchanged": lambda values, kept, grid: put_back(values, kept, grid[::-1]).T,
    "flat": lambda values, kept, grid: put_back(values, kept, grid).flatten(),
    "ones": lambda values, kept, grid: put_back(torch.ones_like(values), kept, grid),
    "what was dropped": lambda values, kept, grid: 1 - put_back(values, kept, grid).clamp(max=1),
})


def one_later(captioner, image, ids):
    memory, kept = captioner.encode_memory(image, prune_ratio=0.0)
    weights = captioner.decoder.attention_weights(torch.tensor([[*ids]]), memory)
    return weights[:, 0, :, :, kept.prefix_count:].unflatten(-1, kept.grid)


hold(check_heads, head_maps, wrong={
    "the place of the word itself": one_later,
    "the mean, for each head": lambda *given: head_maps(*given).mean(dim=(0, 1), keepdim=True).expand_as(
        head_maps(*given)),
    "without layers": lambda *given: head_maps(*given)[0],
    "rows and columns exchanged": lambda *given: head_maps(*given).transpose(-1, -2),
    "sums": lambda *given: head_maps(*given) * 2,
})


def without(captioner, tokens, ids, t, gone, place=-1, word=0):
    stay = (~torch.isin(torch.arange(tokens.x.shape[1]), gone)).nonzero().flatten()[None]
    logits = captioner.decoder(torch.tensor([[BOS, *ids[:t]]]), captioner.projection(tokens.keep(stay).sequence))
    return logits[0, place].log_softmax(dim=-1)[ids[min(t + word, len(ids) - 1)]]


nothing = torch.tensor([], dtype=torch.long)
hold(check_log_p, log_p, wrong={
    "nothing is removed": lambda captioner, tokens, ids, t, gone: log_p(captioner, tokens, ids, t, nothing),
    "the others are removed": lambda captioner, tokens, ids, t, gone: log_p(
        captioner, tokens, ids, t, torch.tensor([n for n in range(64) if n not in gone.tolist()][:32])
        if len(gone) else gone),
    "one cell": lambda captioner, tokens, ids, t, gone: log_p(captioner, tokens, ids, t, gone[:1]),
    "the word after": lambda captioner, tokens, ids, t, gone: without(captioner, tokens, ids, t, gone, word=1),
    "a probability": lambda *given: log_p(*given).exp(),
})
