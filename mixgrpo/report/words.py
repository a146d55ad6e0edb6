"""Lists in words."""

from collections.abc import Sequence


def enumerated(names: Sequence[object]) -> str:
    """A list in words.

    >>> enumerated(["a", "b", "c"]), enumerated([0])
    ('a, b and c', '0')
    """
    *head, last = map(str, names)
    return f"{', '.join(head)} and {last}" if head else last


def seed_words(seeds: Sequence[int]) -> str:
    """How many training seeds, and which.

    >>> seed_words([0]), seed_words([0, 1])
    ('1 training seed (0)', '2 training seeds (0, 1)')
    """
    return f"{len(seeds)} training seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})"
