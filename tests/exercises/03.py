hold(check_window, window_mask, wrong={
    "all that came before": lambda T, reach: causal_mask(T)[0, 0],
    "one too far": lambda T, reach: window_mask(T, reach + 1),
    "to both sides": lambda T, reach: window_mask(T, reach) | window_mask(T, reach).T,
    "without itself": lambda T, reach: window_mask(T, reach).tril(-1),
    "the other convention": lambda T, reach: ~window_mask(T, reach),
    "a batch": lambda T, reach: window_mask(T, reach)[None],
})

hold(check_sight, rows_without_sight, wrong={
    "none": lambda ids: torch.zeros(len(ids), dtype=torch.long),
    "the padding": lambda ids: (ids == PAD).sum(dim=1),
    "the padding mask alone": lambda ids: (~padding_mask(ids).any(dim=-1)).sum(dim=(1, 2)),
    "as many as the longest": lambda ids: rows_without_sight(ids).max().expand(len(ids)),
})

hold(check_shift, shift_matrix, wrong={
    "the identity": lambda k, D: torch.eye(D),
    "backwards": lambda k, D: shift_matrix(k, D).T,
    "one place": lambda k, D: shift_matrix(1, D),
    "one speed for all": lambda k, D: torch.block_diag(*[shift_matrix(k, 2)] * (D // 2)),
})
