hold(check_steps, steps_of, wrong={
    "the short batch, too": lambda pictures, batch_size, epochs: math.ceil(pictures / batch_size) * epochs,
    "an epoch may have none": lambda pictures, batch_size, epochs: pictures // batch_size * epochs,
    "over all epochs": lambda pictures, batch_size, epochs: max(1, pictures * epochs // batch_size),
    "one epoch": lambda pictures, batch_size, epochs: steps_of(pictures, batch_size, 1),
    "at least one in all": lambda pictures, batch_size, epochs: max(1, pictures // batch_size * epochs),
})


def by_factor(gradients, factor):
    return [g * factor(g) for g in gradients]


def length_of(gradients):
    return torch.stack([g.norm() for g in gradients]).norm()


hold(check_clip, clip, wrong={
    "nothing": lambda gradients, most: gradients,
    "each by itself": lambda gradients, most: by_factor(gradients, lambda g: min(1.0, float(most / g.norm()))),
    "always": lambda gradients, most: by_factor(gradients, lambda g: float(most / length_of(gradients))),
    "numbers, not lengths": lambda gradients, most: [g.clamp(-most, most) for g in gradients],
    "the longest alone": lambda gradients, most: by_factor(
        gradients, lambda g: min(1.0, float(most / max(h.norm() for h in gradients)))),
    "lengths added up": lambda gradients, most: by_factor(
        gradients, lambda g: min(1.0, float(most / sum(h.norm() for h in gradients)))),
})


def in_parts(captioner, halves, share, reduction="mean"):
    whole = 0.0
    for images, ids in halves:
        loss = F.cross_entropy(*masked_logits_and_targets(captioner, images, ids), reduction=reduction) * share(halves)
        loss.backward()
        whole += loss.item()
    return whole


def words_of(halves):
    return sum(int((ids[:, 1:] != 0).sum()) for _, ids in halves)


hold(check_accumulate, accumulate, wrong={
    "a mean of means": lambda captioner, halves: in_parts(captioner, halves, lambda halves: 1 / len(halves)),
    "the sum of means": lambda captioner, halves: in_parts(captioner, halves, lambda halves: 1.0),
    "the sum over words": lambda captioner, halves: in_parts(captioner, halves, lambda halves: 1.0, "sum"),
    "the first half": lambda captioner, halves: in_parts(captioner, halves[:1], lambda halves: 1 / words_of(halves),
                                                         "sum"),
    "right gradients, no loss": lambda captioner, halves: 0.0 * accumulate(captioner, halves),
})
