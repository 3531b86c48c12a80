hold(check_count, block_parameters, wrong={
    "without layer scale": lambda C: block_parameters(C) - C,
    "without biases": lambda C: 49 * C + 2 * C + 8 * C * C + C,
    "a full convolution": lambda C: block_parameters(C) - 49 * C + 49 * C * C,
    "without the norm": lambda C: block_parameters(C) - 2 * C,
    "of one width": lambda C: block_parameters(48),
})

hold(check_sees, sees, wrong={
    "the patch itself": lambda patch, depths, cell: (cell * patch, cell * patch + patch - 1),
    "right end exclusive": lambda patch, depths, cell: (sees(patch, depths, cell)[0], sees(patch, depths, cell)[1] + 1),
    "one block a stage": lambda patch, depths, cell: sees(patch, (1,) * len(depths), cell),
    "no doubling": lambda patch, depths, cell: sees(patch, (sum(depths),), cell),
    "how many": lambda patch, depths, cell: sees(patch, depths, cell)[1] - sees(patch, depths, cell)[0] + 1,
})


def moved(encoder, images, cell, share):
    before = encoder(images).x[:, cell]
    grid = torch.zeros(len(images), 8, 8)
    for row in range(8):
        for column in range(8):
            grey = images.clone()
            grey[:, :, row * 8:row * 8 + 8, column * 8:column * 8 + 8] = 0
            grid[:, row, column] = share(encoder(grey).x[:, cell] - before)
    return grid / grid.sum(dim=(1, 2), keepdim=True)


hold(check_covered, covered, wrong={
    "even": lambda encoder, images, cell: torch.full((len(images), 8, 8), 1 / 64),
    "rows and columns exchanged": lambda encoder, images, cell: covered(encoder, images, cell).transpose(1, 2),
    "the square of the way": lambda encoder, images, cell: moved(encoder, images, cell, lambda d: d.norm(dim=-1) ** 2),
    "the sum of the changes": lambda encoder, images, cell: moved(encoder, images, cell, lambda d: d.abs().sum(-1)),
    "another token": lambda encoder, images, cell: covered(encoder, images, 0),
    "not shares": lambda encoder, images, cell: 2 * covered(encoder, images, cell),
})
