hold(check_wasted, wasted, wrong={
    "the ratio": lambda n, ratio: ratio,
    "what stays": lambda n, ratio: keep_count(n, ratio) / n,
    "rounded the other way": lambda n, ratio: math.ceil(round(n * ratio, 9)) / n,
    "a number of keys": lambda n, ratio: n - keep_count(n, ratio),
})


def halves(first, second, k):
    scores = second.clone()
    best = first.topk(k, dim=1).indices
    return scores.scatter(1, best, second.max() + 1 + first.gather(1, best).abs())


hold(check_mixed, mixed, wrong={
    "the grid": lambda grid, pilot, k: grid,
    "the pilot": lambda grid, pilot, k: pilot,
    "their sum": lambda grid, pilot, k: grid + pilot,
    "the pilot first": lambda grid, pilot, k: halves(pilot, grid, k // 2),
    "a lift of 1": lambda grid, pilot, k: pilot + torch.zeros_like(pilot).scatter(
        1, grid.topk(k // 2, dim=1).indices, 1.0),
    "half of all": lambda grid, pilot, k: halves(grid, pilot, k - k // 2),
    "cells": lambda grid, pilot, k: mixed(grid, pilot, k).topk(k).indices,
})
assert check_mixed(lambda grid, pilot, k: halves(grid, pilot, k // 2)) == "right"  # another way to the same cells
assert check_ratio_for(lambda saving: next((i * 0.05 for i in range(19) if 1 - telling[i] / telling[0] >= saving),
                                           None)) == "right"  # 3 * 0.05 is not 0.15 to the last bit

hold(check_ratio_for, ratio_for, wrong={
    "a half": lambda saving: 0.5,
    "never None": lambda saving: ratio_for(saving) or 0.9,
    "the next one": lambda saving: None if ratio_for(saving) is None else ratio_for(saving) + 0.05,
    "of the whole model": lambda saving: ratio_for(saving, base=encoding),
    "the saving itself": lambda saving: saving if saving < 0.9 else None,
    "the largest": lambda saving: None if ratio_for(saving) is None else fine[-1],
})
