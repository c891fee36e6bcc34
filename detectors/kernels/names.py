"""What the name that somebody registers with is like, as one number: how surprising its letters are, its length, its digits.

The surprise of a name is the mean over its letters of -log2 of how often each follows the one before. How often that is was
counted once, in the names below: given names and surnames of many languages, written down here by hand, and smoothed as if
every pair of letters had been seen once more. One name says next to nothing (an honest one may be a string of initials);
the mean of ten tells names made by chance from names made by people (DETECTION: 12 to 34 % of single names, 99 % of tens).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.compiled import inlined

_NAMES = (
    "maria anna elena sofia laura julia sara marta carmen lucia teresa rosa paula andrea nina eva irina olga natalia svetlana "
    "tatiana katarina petra monika agnes ingrid karin astrid helga ursula sabine claudia stefanie nicole sandra martina "
    "michelle isabelle camille chloe manon amelie juliette charlotte emily emma olivia grace hannah megan rachel sarah "
    "rebecca jessica jennifer amanda ashley elizabeth katherine margaret victoria fatima aisha leila yasmin zeynep ayse "
    "priya anjali deepa kavita sunita mei ling yuki sakura haruka akiko keiko minji soojin thuy huong linh nguyen wanjiru "
    "amina chidi ngozi adaeze kwame kofi abena thandi sipho john james robert michael william david richard joseph thomas "
    "charles daniel matthew anthony mark steven paul andrew joshua kevin brian george edward peter alexander alexei dmitri "
    "sergei ivan mikhail nikolai pavel vladimir andrei oleg yuri bogdan radu ion stefan milan zoran goran dragan marek piotr "
    "tomasz krzysztof jakub vaclav jiri ondrej istvan laszlo gabor lars erik anders nils olaf henrik mikkel soren jens "
    "hans klaus juergen wolfgang dieter uwe bernd matthias tobias sebastian florian lukas jonas felix maximilian pierre "
    "jean jacques francois antoine nicolas guillaume thierry laurent giovanni giuseppe marco luca matteo lorenzo alessandro "
    "francesco antonio jose juan carlos luis miguel fernando javier diego pablo manuel rafael pedro joao paulo ricardo bruno "
    "mohammed ahmed ali omar hassan hussein ibrahim khalid youssef mustafa mehmet emre murat rajesh sanjay vikram arjun "
    "rahul amit wei jun hiroshi takashi kenji satoshi daisuke jinho minsoo duc tuan smith johnson williams brown jones miller "
    "davis wilson anderson taylor moore jackson martin thompson white harris clark lewis robinson walker young allen king "
    "wright scott hill green adams baker nelson carter mitchell roberts turner phillips campbell parker evans edwards collins "
    "mueller schmidt schneider fischer weber meyer wagner becker schulz hoffmann koch bauer richter klein wolf schroeder "
    "neumann schwarz zimmermann braun krueger hartmann lange werner krause lehmann dubois durand leroy moreau simon michel "
    "lefebvre garcia martinez lopez sanchez gonzalez rodriguez fernandez perez gomez ruiz silva santos oliveira souza pereira "
    "costa ferreira rossi russo ferrari esposito bianchi romano colombo ricci marino greco novak horvath kovacs nagy szabo "
    "kowalski nowak wisniewski ivanov petrov sidorov popescu ionescu johansson andersson nilsson larsen hansen pedersen "
    "virtanen korhonen jansen devries vandenberg bakker visser kumar singh sharma patel gupta khan hussain chen wang li zhang "
    "liu tanaka suzuki takahashi watanabe sato kim park lee choi tran okafor mensah ndlovu abdi"
)
"""Common names, one of each: nobody's in particular."""

SYMBOLS = 28
"""The letters; a digit; and whatever else, which also stands before the first and behind the last character."""
DIGIT, OTHER = 26, 27
SURPRISE_SCALE = 100
"""Of bits: the number is kept whole."""
SURPRISE_BITS, LENGTH_BITS, DIGIT_BITS, ASN_BITS, RANK_BITS = 11, 7, 7, 32, 5
_LENGTH_AT = SURPRISE_BITS
_DIGITS_AT = _LENGTH_AT + LENGTH_BITS
_FLAG_AT = _DIGITS_AT + DIGIT_BITS
_ASN_AT = _FLAG_AT + 1
_RANK_AT = _ASN_AT + ASN_BITS
RANK_MAX = (1 << RANK_BITS) - 1
_SURPRISE_MAX, _LENGTH_MAX = (1 << SURPRISE_BITS) - 1, (1 << LENGTH_BITS) - 1
NAME_BYTES_MAX = 64
"""Of a longer name the first so many."""


def symbol_of(byte: int) -> int:
    """Which of `SYMBOLS` a byte is."""
    lower = byte | 0x20
    if ord("a") <= lower <= ord("z"):
        return lower - ord("a")
    return DIGIT if ord("0") <= byte <= ord("9") else OTHER


def _surprises() -> npt.NDArray[np.int64]:
    """i64[SYMBOLS * SYMBOLS]: -log2 of how often the second follows the first, in hundredths of a bit."""
    seen = np.ones((SYMBOLS, SYMBOLS))
    for name in _NAMES.split():
        symbols = [OTHER, *(symbol_of(byte) for byte in name.encode()), OTHER]
        for one, other in itertools.pairwise(symbols):
            seen[one, other] += 1
    # Years and full stops are as common in names as letters are, and no list of names has them.
    letters = seen[:DIGIT, :DIGIT].sum() / DIGIT
    seen[:DIGIT, DIGIT] += 0.02 * letters
    seen[DIGIT, DIGIT] += 0.5 * letters
    seen[DIGIT, OTHER] += 0.3 * letters
    seen[OTHER, OTHER] += 0.1 * letters
    shares = seen / seen.sum(axis=1, keepdims=True)
    return np.array([round(-SURPRISE_SCALE * math.log2(share)) for share in shares.ravel()], np.int64)


SURPRISES = _surprises()
_SYMBOL = np.array([symbol_of(byte) for byte in range(256)], np.int64)


@inlined
def notes_kernel(buffer: Any, start: Any, length: Any, asn: Any, rank: Any) -> Any:
    """i64: what is told of a registration: its name (surprise, length, digits), its autonomous system, that it is one, and up
    to which level samples of requests have its account."""
    length = min(length, NAME_BYTES_MAX)
    before, digits, surprise = np.int64(OTHER), np.int64(0), np.int64(0)
    for at in range(start, start + length):
        symbol = _SYMBOL[buffer[at]]
        surprise += SURPRISES[before * SYMBOLS + symbol]
        digits += np.int64(symbol == DIGIT)
        before = symbol
    if length > 0:
        surprise = (surprise + SURPRISES[before * SYMBOLS + OTHER]) // (length + 1)
    surprise = min(surprise, np.int64(_SURPRISE_MAX))
    number = min(max(asn, np.int64(0)), np.int64((1 << ASN_BITS) - 1))
    return (
        surprise | length << np.int64(_LENGTH_AT) | digits << np.int64(_DIGITS_AT) | np.int64(1) << np.int64(_FLAG_AT)
        | number << np.int64(_ASN_AT) | rank << np.int64(_RANK_AT)
    )  # fmt: skip


def surprise_of(notes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """f64[n]: bits for each letter of the names; 0 where there is none."""
    return (notes & _SURPRISE_MAX) / SURPRISE_SCALE


def length_of(notes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """i64[n]: how long the names are, up to `NAME_BYTES_MAX`."""
    return notes >> _LENGTH_AT & _LENGTH_MAX


def digits_of(notes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """i64[n]: how many digits they hold."""
    return notes >> _DIGITS_AT & ((1 << DIGIT_BITS) - 1)


def registers(notes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool[n]: which events are registrations, or were tried."""
    found: npt.NDArray[np.bool_] = (notes >> _FLAG_AT & 1) == 1
    return found


@inlined
def registers_kernel(notes: Any) -> Any:
    """Is an event a registration, or was one tried?"""
    return notes >> np.int64(_FLAG_AT) & np.int64(1) == 1


def asn_of(notes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """i64[n]: their autonomous systems; 0 where none is known."""
    return notes >> _ASN_AT & ((1 << ASN_BITS) - 1)


def rank_of(notes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """i64[n]: a second's sample of accounts has theirs, if they ask for anything, as long as its level is no higher."""
    return notes >> _RANK_AT & RANK_MAX


def make_notes(surprise: Any, length: Any, digits: Any, asn: Any, rank: Any = 0) -> npt.NDArray[np.int64]:
    """i64[n]: notes of registrations that were made up; ``surprise`` in bits."""
    scaled = np.minimum(np.rint(np.asarray(surprise) * SURPRISE_SCALE).astype(np.int64), _SURPRISE_MAX)
    told: npt.NDArray[np.int64] = scaled | np.asarray(length, np.int64) << _LENGTH_AT | np.int64(1) << _FLAG_AT
    told |= np.asarray(digits, np.int64) << _DIGITS_AT | np.asarray(asn, np.int64) << _ASN_AT
    told |= np.asarray(rank, np.int64) << _RANK_AT
    return told
