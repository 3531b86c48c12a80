hold(check_tokens, tokens_left, wrong={
    "rounds down": lambda size, patch, ratio: math.floor((1 - ratio) * (size // patch) ** 2),
    "does not guard against floating point": lambda size, patch, ratio: math.ceil((1 - ratio) * (size // patch) ** 2),
    "counts what goes": lambda size, patch, ratio: math.ceil(ratio * (size // patch) ** 2),
    "one side": lambda size, patch, ratio: math.ceil(round((1 - ratio) * (size // patch), 9)),
    "a float": lambda size, patch, ratio: (1 - ratio) * (size / patch) ** 2,
})


def exchanged(model):
    parts = weights_by_part(model)
    return {**parts, "encoder": parts["decoder"], "decoder": parts["encoder"]}


hold(check_weights, weights_by_part, wrong={
    "encoder and decoder exchanged": exchanged,
    "constants": lambda _: weights_by_part(model),
    "tensors, not numbers": lambda model: {name: len(list(part.parameters())) for name, part in model.named_children()},
    "the shared matrix twice": lambda model: {name: sum(p.numel() for _, p in part.named_parameters(
        remove_duplicate=False)) for name, part in model.named_children()},
    "only what has two axes": lambda model: {name: sum(p.numel() for p in part.parameters() if p.dim() > 1)
                                             for name, part in model.named_children()},
})

looked = train_to_look()
hold(check_looking, lambda: looked, wrong={
    "an untrained model": lambda: (OnePage(len(vocabulary)), torch.arange(8)),
    "the chapter's model": lambda: (model, torch.arange(8)),
    "a single picture": lambda: (looked[0], torch.arange(1)),
})
