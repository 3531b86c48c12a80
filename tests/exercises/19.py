hold(check_unseen, unseen, wrong={
    "nothing": lambda preprocessing, size: 0.0,
    "what is seen": lambda preprocessing, size: 1 - unseen(preprocessing, size),
    "crop_pct alone": lambda preprocessing, size: 1 - preprocessing.crop_pct**2,
    "the longer side alone": lambda preprocessing, size: 1 - min(size) / max(size),
    "a side, not an area": lambda preprocessing, size: 1 - (1 - unseen(preprocessing, size)) ** 0.5,
})

hold(check_words, word_probabilities, wrong={
    "all alike": lambda captioner, photo, caption: (
        [math.exp(caption.log_prob / len(caption.ids))] * len(caption.ids)),
    "in reverse": lambda *given: word_probabilities(*given)[::-1],
    "sorted": lambda *given: sorted(word_probabilities(*given)),
    "logarithms": lambda *given: [math.log(p) for p in word_probabilities(*given)],
    "so far": lambda *given: np.cumprod(word_probabilities(*given)).tolist(),
    "without the end": lambda *given: word_probabilities(*given)[:-1],
})


def of_squares(captioner, photo, choose, method="beam"):
    side, wide = photo.height, photo.width
    squares = [photo.crop((left, 0, left + side, side)) for left in (0, (wide - side) // 2, wide - side)]
    return choose(captioner.generate(squares, method=method))


def a_word(caption):
    return caption.log_prob / len(caption.ids)


hold(check_around, look_around, wrong={
    "the whole photograph": lambda captioner, photo: captioner.generate([photo], method="beam")[0],
    "the worst": lambda captioner, photo: of_squares(captioner, photo, lambda found: min(found, key=a_word)),
    "left and right alone": lambda captioner, photo: of_squares(captioner, photo, lambda found: min(
        found[0], found[2], key=a_word)),
    "the text": lambda captioner, photo: look_around(captioner, photo).text,
})
