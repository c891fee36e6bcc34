"""The enforcement point behind the CrowdSec-compatible feed: from what is in force to what each kind of bouncer is offered.

There are two views. Bouncers that match prefixes are offered them as they are, without what an operator allows inside. To all
others a prefix would be its first address only, silently: they are offered single addresses, all 256 of an IPv4 /24, and of an
IPv6 prefix those that were seen. One thread changes the feed, others ask it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge.bouncer_keys import BouncerKey, Keyring
from edge.decisions import LENGTHS, TYPE_OF, Place, pieces, place_of, scope_of, supports
from edge.enforce import Done
from edge.offers import Answer, Asks, Cursor, Offer, Offers
from edge.reader import ALLOW, STRENGTH, Change, Standing
from edge.sightings import Sightings
from edge.subject import Subject, covering, parse_prefix, prefix_subject

PLACES_MAX = 200_000
"""What each view may offer at once, the default of ``policy.active_max``. A prefix that does not fit is acknowledged as
``error``; Debian's bouncer takes minutes for half as many."""
CLIENTS_MAX = 4096
"""Bouncers (key and address) whose place is remembered; one that is forgotten is told everything again."""
_UNSUPPORTED = "no bouncer that has a key here can be told of this, and none is told of anything harsher"
_PARTIAL = "bouncers without ranges are told only of the addresses that were seen in the prefix"
_FULL = f"this edge offers {PLACES_MAX} addresses and prefixes at once, and not more"


@dataclass(frozen=True, slots=True)
class Told:
    """An answer on its way, and what it means for the bouncer's place if it arrives."""

    client: tuple[str, str]
    view: bool
    cursor: Cursor
    answer: Answer


class Feed:
    """What is in force, as decisions.

    Args:
        keyring: who may ask, and for what.
        sightings: addresses that were seen in prefixes of IPv6.
        resting: subjects about which the topic says that nothing is in force, and until when (ms) something was; a bouncer
            may hold it from before this process began.
    """

    def __init__(self, keyring: Keyring, sightings: Sightings, resting: Callable[[int], Iterable[tuple[Subject, int]]]) -> None:
        self._keyring = keyring
        self._sightings = sightings
        self._resting = resting
        self._lock = threading.Lock()
        self._table: dict[Subject, Standing] = {}
        # By whether bouncers of the view match prefixes.
        self._views = {False: Offers(PLACES_MAX), True: Offers(PLACES_MAX)}
        self._offered: dict[Subject, tuple[Place, ...]] = {}
        """What a prefix has been made of in the view of prefixes."""
        self._expanded: dict[Subject, tuple[Subject, ...]] = {}
        """The addresses of a prefix in the view of addresses."""
        self._allows: dict[Subject, Standing] = {}
        """What operators let through, of the table."""
        self._unsaid: dict[Subject, Standing] = {}
        """In force, and not yet in any answer that arrived."""
        self._done: list[Done] = []
        self._cursors: OrderedDict[tuple[str, str, bool], Cursor] = OrderedDict()
        self.is_filled = False
        """The topic has been read to its end: before that, nothing is known."""

    def supports(self, subject: Subject, action: str) -> bool:
        """Whether any bouncer can be told of this: one that can has a key now."""
        if not supports(subject, action):
            return False
        scope = scope_of(subject)
        if action == ALLOW:
            return True
        kind = TYPE_OF[action]
        if scope == "Range":
            return self._keyring.takes("Range", kind) or self._keyring.takes("Ip", kind)
        return self._keyring.takes(scope or "", kind)

    def replace(self, standing: Mapping[Subject, Standing], now_ms: int) -> None:
        """Hold exactly this."""
        with self._lock:
            gone = [subject for subject in self._table if subject not in standing]
            changed = [subject for subject, one in standing.items() if self._table.get(subject) != one]
            for subject in gone:
                self._unsaid.pop(subject, None)
            self._unsaid.update({subject: standing[subject] for subject in changed})
            self._take(gone, changed, standing, now_ms)
            if not self.is_filled:
                for subject, until_ms in self._resting(now_ms):
                    self._bury(subject, until_ms, now_ms)
            self.is_filled = True

    def change(self, changes: Sequence[Change], now_ms: int) -> None:
        """Take these steps."""
        with self._lock:
            after = {change.subject: change.after for change in changes if change.after is not None}
            for change in changes:
                if change.after is None:
                    self._unsaid.pop(change.subject, None)
                elif change.before is None or _name(change.before) != _name(change.after):
                    self._unsaid[change.subject] = change.after
                elif change.subject in self._unsaid:
                    self._unsaid[change.subject] = change.after
            self._take([change.subject for change in changes if change.after is None], list(after), after, now_ms)

    def is_intact(self) -> bool:
        """Nobody else can empty it."""
        return True

    def done(self) -> list[Done]:
        """What can be acknowledged since the last call: arrived at a bouncer, or cannot be told to any."""
        with self._lock:
            found, self._done = self._done, []
            return found

    def tell(self, asks: Asks, address: str, *, is_startup: bool, now_ms: int) -> Told:
        """What a bouncer is to be told, and nothing that it has been told already unless it may not have heard."""
        view = asks.key.has_ranges
        client = asks.key.name, address
        with self._lock:
            offers = self._views[view]
            cursor = self._cursors.get((*client, view))
            if is_startup or cursor is None or not offers.knows(cursor):
                answer = offers.all(asks, now_ms)
                return Told(client, view, Cursor(answer.number, answer.number), answer)
            answer = offers.since(cursor, asks, now_ms)
            return Told(client, view, Cursor(cursor.last, answer.number), answer)

    def arrived(self, told: Told) -> None:
        """The bouncer has the answer: what comes next is what changes from here on."""
        with self._lock:
            place = (*told.client, told.view)
            self._cursors[place] = told.cursor
            self._cursors.move_to_end(place)
            if len(self._cursors) > CLIENTS_MAX:
                self._cursors.popitem(last=False)
            for address, offer in told.answer.new:
                standing = self._unsaid.get(offer.subject)
                if standing is not None and _name(standing) == _name(offer.standing):
                    self._say(offer.subject, standing)
                if offer.subject.text != address.value and address.scope == "Ip":
                    # A wider prefix is stronger there: what is decided about the address itself is done with it.
                    own = parse_prefix(address.value)
                    if (standing := self._unsaid.get(own)) is not None:
                        self._say(own, standing)

    def about(self, text: str, key: BouncerKey, now_ms: int) -> list[tuple[Place, Standing]]:
        """What is decided about an address or prefix now, the strongest first.

        Raises:
            ValueError: ``text`` is neither.
        """
        asked = parse_prefix(text)
        if asked.length < min(LENGTHS[asked.kind]):
            return []  # nothing here is so wide
        is_single = asked.length == LENGTHS[asked.kind][0]
        with self._lock:
            around = [(subject, self._table.get(subject)) for subject in _around(asked)]
        standing = [(subject, one) for subject, one in around if one is not None and one.expires_at_ms > now_ms]
        if any(one.action == ALLOW for _, one in standing):
            return []
        found = []
        for subject, one in sorted(standing, key=lambda pair: _strength(pair[1]), reverse=True):
            # Who has no ranges would take one for its first address; about the address that it asks for it can be told.
            place = place_of(asked) if is_single and not key.has_ranges else place_of(subject)
            if key.takes(place.scope, TYPE_OF[one.action]):
                found.append((place, one))
        return found

    def named(self, place: Place, key: BouncerKey) -> Offer | None:
        """What is decided about a country or a network operator now."""
        with self._lock:
            offer = self._views[key.has_ranges].get(place)
        return offer if offer is not None and key.takes(place.scope, offer.kind) else None

    def sizes(self) -> dict[str, int]:
        """How much is offered, by view."""
        return {"addresses": len(self._views[False]), "ranges": len(self._views[True])}

    def _take(self, gone: list[Subject], changed: list[Subject], after: Mapping[Subject, Standing], now_ms: int) -> None:
        affected = dict.fromkeys([*gone, *changed])
        allows = [subject for subject in gone if self._allows.pop(subject, None)]
        for subject in gone:
            self._table.pop(subject, None)
        for subject in changed:
            self._table[subject] = after[subject]
            was_allowed = self._allows.pop(subject, None) is not None
            if after[subject].action == ALLOW:
                self._allows[subject] = after[subject]
            if was_allowed or subject in self._allows:
                allows.append(subject)
        for allow in allows:  # an operator's act, and rare: it may cost a walk
            affected.update(
                dict.fromkeys(other for other in self._table if other.low <= allow.high and allow.low <= other.high)
            )
        for subject in affected:
            self._offer(subject, now_ms)

    def _offer(self, subject: Subject, now_ms: int) -> None:
        """Bring both views up to what is in force on a subject."""
        standing = self._table.get(subject)
        if scope_of(subject) == "Range":
            fits = self._offer_pieces(subject, standing, now_ms)
            fits &= self._offer_addresses(subject, standing, now_ms)
        elif subject.kind in LENGTHS:
            fits = self._offer_address(subject, now_ms)
            fits &= self._put(True, place_of(subject), None if self._is_allowed(subject) else standing, subject, now_ms)
        else:
            refused = [view for view in self._views if not self._put(view, place_of(subject), standing, subject, now_ms)]
            fits = not refused
        if standing is not None and subject in self._unsaid:
            self._judge(subject, standing, fits)

    def _judge(self, subject: Subject, standing: Standing, fits: bool) -> None:
        """Acknowledge at once what will never be in an answer; an allow is done when nobody is told of the target."""
        if standing.action == ALLOW:
            self._done.append(Done(standing.record, "applied", ""))
        elif not fits:
            self._done.append(Done(standing.record, "error", _FULL))
        elif not self._reaches(subject, TYPE_OF[standing.action]):
            self._done.append(Done(standing.record, "unsupported", _UNSUPPORTED))
        else:
            return
        del self._unsaid[subject]

    def _say(self, subject: Subject, standing: Standing) -> None:
        """Acknowledge what has arrived, once."""
        del self._unsaid[subject]
        if self._is_whole(subject, TYPE_OF[standing.action]):
            self._done.append(Done(standing.record, "applied", ""))
        else:
            self._done.append(Done(standing.record, "partial", _PARTIAL))

    def _is_whole(self, subject: Subject, kind: str) -> bool:
        """Every bouncer that takes such decisions can be told of the whole of it."""
        if subject.kind == "ip6" and subject.length != LENGTHS["ip6"][0]:
            takers = [key for key in self._keyring.keys if kind in key.types]
            return bool(takers) and all(key.has_ranges for key in takers)
        return True

    def _reaches(self, subject: Subject, kind: str) -> bool:
        """Some bouncer can be told of some of it."""
        if scope_of(subject) != "Range":
            return self._keyring.takes(scope_of(subject) or "", kind)
        return self._keyring.takes("Range", kind) or (self._keyring.takes("Ip", kind) and bool(self._expanded.get(subject)))

    def _offer_addresses(self, prefix: Subject, standing: Standing | None, now_ms: int) -> bool:
        """In the view of addresses: every single one that stands for a prefix; False: they do not all fit."""
        before = self._expanded.pop(prefix, ())
        now = self._addresses(prefix) if standing is not None else ()
        if len(self._views[False]) + len(now) - len(before) > PLACES_MAX:
            now = ()
        if now:
            self._expanded[prefix] = now
        for address in dict.fromkeys((*before, *now)):
            self._offer_address(address, now_ms)
        return bool(now) or standing is None or prefix.kind == "ip6"

    def _offer_address(self, address: Subject, now_ms: int) -> bool:
        """In the view of addresses: the strongest of everything that has the address in it."""
        around = _around(address) if self._expanded else (address,)
        found = [
            (one, subject)
            for subject in around
            if (one := self._table.get(subject)) is not None and (subject == address or self._stands_for(address, subject))
        ]
        if not found or self._is_allowed(address):
            return self._put(False, place_of(address), None, address, now_ms)
        standing, subject = max(found, key=lambda pair: _strength(pair[0]))
        return self._put(False, place_of(address), standing, subject, now_ms)

    def _stands_for(self, address: Subject, prefix: Subject) -> bool:
        """Whether an address is among those that a prefix has been expanded to."""
        return prefix in self._expanded and (prefix.kind == "ip4" or address in self._expanded[prefix])

    def _offer_pieces(self, subject: Subject, standing: Standing | None, now_ms: int) -> bool:
        """In the view of prefixes: the prefix, without what is allowed in it."""
        before = self._offered.pop(subject, ())
        now: tuple[Place, ...] = ()
        if standing is not None and standing.action != ALLOW and not self._is_allowed(subject):
            now = pieces(subject, [one for one in self._allows if subject.low <= one.low and one.high <= subject.high])
            self._offered[subject] = now
        for place in before:
            if place not in now:
                self._views[True].drop(place, now_ms)
        refused = [place for place in now if not self._put(True, place, standing, subject, now_ms)]
        return not refused

    def _put(self, view: bool, place: Place, standing: Standing | None, subject: Subject, now_ms: int) -> bool:
        if standing is None or standing.action == ALLOW:
            self._views[view].drop(place, now_ms)
            return True
        return self._views[view].put(place, TYPE_OF[standing.action], standing, subject)

    def _addresses(self, prefix: Subject) -> tuple[Subject, ...]:
        """The single addresses that stand for a prefix."""
        if prefix.kind == "ip6":
            return self._sightings.within(prefix)
        return tuple(prefix_subject(low, 128) for low in range(prefix.low, prefix.high + 1))

    def _is_allowed(self, subject: Subject) -> bool:
        """Whether an operator lets the whole of it through."""
        return bool(self._allows) and any(one in self._allows for one in _around(subject))

    def _bury(self, subject: Subject, until_ms: int, now_ms: int) -> None:
        """A bouncer may still hold something about this subject."""
        if scope_of(subject) is None:
            return
        self._views[True].bury(place_of(subject), until_ms, now_ms)
        addresses = self._addresses(subject) if scope_of(subject) == "Range" else (subject,)
        for address in addresses:
            self._views[False].bury(place_of(address), until_ms, now_ms)


def _around(subject: Subject) -> tuple[Subject, ...]:
    """An address or prefix and every prefix that has all of it in it."""
    lengths = tuple(length for length in LENGTHS[subject.kind] if length <= subject.length)
    return covering(subject.value, {subject.kind: lengths})


def _name(standing: Standing) -> tuple[str, str]:
    """What is acknowledged once."""
    return standing.record.id, standing.action


def _strength(standing: Standing) -> tuple[int, int]:
    return STRENGTH[standing.action], standing.expires_at_ms
