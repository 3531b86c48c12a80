def counted(content, with_empty=True):
    by_image = {image["id"]: 0 for image in content["images"]} if with_empty else {}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]] = by_image.get(annotation["image_id"], 0) + 1
    return by_image


hold(check_counts, caption_counts, wrong={
    "without pictures that have none": lambda content: Counter(counted(content, with_empty=False).values()),
    "by picture": counted,
    "the other way round": lambda content: {n: k for k, n in Counter(counted(content).values()).items()},
    "only one file's": lambda content: {2: 1, 0: 1, 1: 1},
    "the number of captions": lambda content: len(content["annotations"]),
})

hold(check_mismatches, mismatches, wrong={
    "each as often as it is named": lambda content: (
        sorted(one["image_id"] for one in content["annotations"]
               if one["image_id"] not in {image["id"] for image in content["images"]}), mismatches(content)[1]),
    "the other way round": lambda content: mismatches(content)[::-1],
    "in the file's order": lambda content: (mismatches(content)[0][::-1], mismatches(content)[1][::-1]),
    "only the unknown": lambda content: (mismatches(content)[0], []),
    "how many": lambda content: tuple(map(len, mismatches(content))),
})


def corners(counts, height, into_the_next=False, inclusive=False):
    left, top, width, high = box_of_runs(counts, height)
    if not into_the_next:
        position, columns, rows = 0, [], []
        for number, length in enumerate(counts):
            if number % 2 and length:
                columns += [position // height, (position + length - 1) // height]
                rows += [position % height, (position + length - 1) % height]
            position += length
        left, top, width, high = (min(columns), min(rows), max(columns) - min(columns) + 1,
                                  max(rows) - min(rows) + 1)
    return (left, top, width - 1, high - 1) if inclusive else (left, top, width, high)


hold(check_box, box_of_runs, wrong={
    "a run that goes on is overlooked": corners,
    "one too small": lambda counts, height: corners(counts, height, into_the_next=True, inclusive=True),
    "rows and columns exchanged": lambda counts, height: tuple(box_of_runs(counts, height)[i] for i in (1, 0, 3, 2)),
    "right and bottom edge": lambda counts, height: (lambda l, t, w, h: (l, t, l + w, t + h))(
        *box_of_runs(counts, height)),
})
