hold(check_cores, cores_needed, wrong={
    "rounded down": lambda per_second, per_core, waiting: max(1, int(per_second * (1 - waiting) / per_core)),
    "never waiting": lambda per_second, per_core, waiting: cores_needed(per_second, per_core),
    "one to spare": lambda *given: cores_needed(*given) + 1,
    "a fraction": lambda per_second, per_core, waiting: per_second * (1 - waiting) / per_core,
    "waiting added": lambda per_second, per_core, waiting: cores_needed(per_second * (1 + waiting), per_core),
})

hold(check_advantages, advantages, wrong={
    "the mean of all": lambda rewards: rewards - rewards.mean(dim=1, keepdim=True),
    "the mean of the batch": lambda rewards: rewards - rewards.mean(),
    "the others' sum": lambda rewards: rewards - (rewards.sum(dim=1, keepdim=True) - rewards),
    "as of two": lambda rewards: rewards - (rewards.mean(dim=1, keepdim=True) * 2 - rewards),
    "the best": lambda rewards: rewards - rewards.amax(dim=1, keepdim=True),
    "one a picture": lambda rewards: advantages(rewards)[:, 0],
})


def shuffled(line, generator):
    return [line[i] for i in torch.randperm(len(line), generator=generator).tolist()]


hold(check_order, order, wrong={
    "in order": lambda shards, window, generator: sum(shards, []),
    "all of it": lambda shards, window, generator: shuffled(sum(shards, []), generator),
    "shards alone": lambda shards, window, generator: sum(shuffled(shards, generator), []),
    "within shards alone": lambda shards, window, generator: sum(
        (shuffled(shard, generator) for shard in shards), []),
    "shards, and within each": lambda shards, window, generator: sum(
        (shuffled(shard, generator) for shard in shuffled(shards, generator)), []),
    "windows, and shards in order": lambda shards, window, generator: sum(
        (shuffled(sum(shards, [])[i:i + window], generator) for i in range(0, 1000, window)), []),
    "one shard is lost": lambda shards, window, generator: order(shards[1:], window, generator),
    "another order each time": lambda shards, window, generator: order(shards, window, torch.default_generator),
})
