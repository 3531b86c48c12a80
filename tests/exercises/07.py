hold(check_cells, cells, wrong={
    "paths": lambda k, n: k ** (2 * n),
    "on a line": lambda k, n: n * (k - 1) + 1,
    "one block": lambda k, n: k * k,
    "added up": lambda k, n: n * k * k,
    "the diameter too large": lambda k, n: (n * k) ** 2,
})

hold(check_balance, balance, wrong={
    "half": lambda C: C,
    "twice": lambda C: 4 * C,
    "by heads": lambda C: 2 * C / 4,
    "of one width": lambda C: 64,
    "its square": lambda C: (2 * C) ** 2,
})


class Row(nn.Module):
    def forward(self, x):
        return x.mean(dim=2, keepdim=True) - x


class TwoMeans(nn.Module):
    def forward(self, x):
        return (x.mean(dim=2, keepdim=True) + x.mean(dim=1, keepdim=True)) / 2 - x


class Sum(nn.Module):
    def forward(self, x):
        return x.sum(dim=2, keepdim=True) + x.sum(dim=1, keepdim=True) - x


class Whole(nn.Module):
    def forward(self, x):
        return x.mean(dim=(1, 2), keepdim=True) - x


class CellLeftIn(nn.Module):
    def forward(self, x):
        return Cross()(x) + x


hold(check_cross, Cross, wrong={
    "zeros": type("Zeros", (nn.Module,), {"forward": lambda self, x: torch.zeros_like(x)}),
    "the row alone": Row, "the mean of two means": TwoMeans, "a sum": Sum, "the whole map": Whole,
    "the cell not taken away": CellLeftIn,
})
