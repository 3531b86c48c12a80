hold(check_pixels, pixels_of, wrong={
    "x and y exchanged": lambda cell, width, patch: tuple(pixels_of(cell, width, patch)[i] for i in (1, 0, 3, 2)),
    "right and bottom inclusive": lambda cell, width, patch: (
        lambda l, t, r, b: (l, t, r - 1, b - 1))(*pixels_of(cell, width, patch)),
    "left, top, width, height": lambda cell, width, patch: (*pixels_of(cell, width, patch)[:2], patch, patch),
    "in cells": lambda cell, width, patch: pixels_of(cell, width, 1),
    "always 8 wide": lambda cell, width, patch: pixels_of(cell, 8, patch),
})

hold(check_shuffle, shuffle, wrong={
    "not at all": lambda images, order, s: images,
    "the inverse": lambda images, order, s: shuffle(images, order.argsort(), s),
    "the patches, not put together": lambda images, order, s: cut(images, s)[:, order],
    "rows and columns exchanged": lambda images, order, s: shuffle(images, order, s).transpose(2, 3),
    "only the first": lambda images, order, s: shuffle(images[:1], order, s),
})


def depths(encoder, images, pick):
    x, maps = encoder.norm_pre(encoder.embed(images)), []
    for block in encoder.blocks:
        x, weights = block(x, need_weights=True)
        maps.append(pick(weights))
    return maps


def from_the_start(encoder, images):
    x = encoder.norm_pre(encoder.embed(images))
    return [block(x, need_weights=True)[1].mean(dim=1)[:, 0, 1:] for block in encoder.blocks]


hold(check_depth, by_depth, wrong={
    "the last one six times": lambda encoder, images: [by_depth(encoder, images)[-1]] * 6,
    "with its own column": lambda encoder, images: depths(encoder, images, lambda w: w.mean(1)[:, 0]),
    "one head": lambda encoder, images: depths(encoder, images, lambda w: w[:, 0, 0, 1:]),
    "attention to the class token": lambda encoder, images: depths(encoder, images, lambda w: w.mean(1)[:, 1:, 0]),
    "attention received": lambda encoder, images: depths(encoder, images, lambda w: w.mean((1, 2))[:, 1:]),
    "in reverse": lambda encoder, images: by_depth(encoder, images)[::-1],
    "each block asked about the first tokens": from_the_start,
})
