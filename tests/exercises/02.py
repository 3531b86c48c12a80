def smallest(counts, rate, strictly=False):
    missing = total = sum(counts.values())
    for size, (_, n) in enumerate(Counter(counts).most_common(), start=1):
        missing -= n
        if missing < rate * total or not strictly and missing <= rate * total:
            return size
    return len(counts)


hold(check_smallest, smallest_list, wrong={
    "strictly fewer": lambda counts, rate: smallest(counts, rate, strictly=True),
    "with the specials": lambda counts, rate: smallest(counts, rate) + 4,
    "a share of the words, not of what is counted": lambda counts, rate: math.ceil((1 - rate) * len(counts)),
    "all": lambda counts, rate: len(counts),
})

hold(check_chunks, chunks_by_length, wrong={
    "in order": lambda rows, size: [list(range(i, i + size)) for i in range(0, len(rows), size)],
    "sorted within each batch": lambda rows, size: [
        sorted(range(i, i + size), key=lambda n: len(rows[n])) for i in range(0, len(rows), size)],
    "one is lost": lambda rows, size: [chunk[:-1] for chunk in chunks_by_length(rows, size)],
    "smaller batches": lambda rows, size: chunks_by_length(rows, size // 2),
    "the rows themselves": lambda rows, size: [[rows[i] for i in chunk] for chunk in chunks_by_length(rows, size)],
})


def longest_first(word, merges):
    row, known = list("·" + word), {"".join(pair) for pair in merges}
    i = 0
    while i < len(row):
        for end in range(len(row), i + 1, -1):
            if "".join(row[i:end]) in known:
                row[i:end] = ["".join(row[i:end])]
                break
        i += 1
    return row


def without_dot(word, merges):
    row = list(word)
    for pair in merges:
        row = join(row, pair)
    return row


hold(check_split, split_word, wrong={
    "letters": lambda word, merges: list("·" + word),
    "without the dot": without_dot,
    "in reverse order": lambda word, merges: split_word(word, merges[::-1]),
    "only the first hundred": lambda word, merges: split_word(word, merges[:100]),
    "the longest piece first": longest_first,
})
