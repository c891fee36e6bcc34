"""What a window's keys do to one book, of which `engine.keys.LearnedKeys` does the same for those of all partitions at once."""

from __future__ import annotations

import numpy as np

from engine.key_book import Key, KeyBook


def take_in(book: KeyBook, window: int, asked: list[tuple[Key, int]]) -> list[int]:
    """Count what keys were asked for, and offer places to those that have none. Returns the places that are somebody else's
    now."""
    known, strangers = list[tuple[int, int]](), list[tuple[Key, int]]()
    for (key, requests), place in zip(asked, book.find([key for key, _ in asked]).tolist(), strict=True):
        if place < book.room:
            known.append((place, requests))
        else:
            strangers.append((key, requests))
    places, counts = np.array(known, np.int64).reshape(-1, 2).T
    book.books.count(window, np.full(len(known), book.partition), places, counts)
    offered = np.array([requests for _, requests in strangers], np.int64)
    return book.admit(window, [key for key, _ in strangers], lambda _: b"a key", offered)
