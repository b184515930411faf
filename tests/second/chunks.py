"""What happens on the machine, as rows and chunks of encoding 1: the table, its digest, keyframes.

It does no I/O. A Table is what is true now; a Writer turns changes of it into the bodies of chunks of
one segment after another. Only what is in the table's log has been told to it, in that order.
"""

import hashlib
import struct

from wire import U64, Reader, data, varint, zigzag

PROCESS, FILE_EVENT, CONNECTION, DNS, OUTCOME, FINDING, NOTE = 3, 4, 5, 6, 9, 10, 0x8001
PUT, PATCH, REMOVE, FORGET, EVENT, DEFINE, DROPPED, MARK = range(8)
URGENT, KEYFRAME, KEYFRAME_LAST, SELF_CONTAINED = 1, 2, 4, 8
VALUE_BYTES_MAX, ROW_BYTES_MAX, STRING_SLOTS = 4096, 8064, 256
BODY_BYTES, PART_BYTES, FACTS = 3000, 7000, 32  # where a chunk closes: well below its bounds

# The type of each feature: u U64, i I64, s Bytes, Text or Hash, t Time, p Ip, r Ref.
COMMON = {0: "u", 1: "u", 2: "u"}
FEATURES = {
    PROCESS: dict(zip(range(3, 19), "uurssusssstituuu")),
    FILE_EVENT: dict(zip(range(3, 14), "sursuuuusss")),
    CONNECTION: dict(zip(range(3, 18), "upuputrussuuuus")),
    DNS: dict(zip(range(3, 11), "suusrpss")),
    OUTCOME: dict(zip(range(3, 8), "uuuss")),
    FINDING: dict(zip(range(3, 7), "ussu")),
    NOTE: {3: "s"},
}
KEYS = {PROCESS: range(3, 5), CONNECTION: range(3, 9)}
# An agent's own kind, as its Define op says it: number, name, event, scope boot, one Text feature.
NOTE_DEFINITION = varint(NOTE) + data("second_note") + b"\1\1" + data(b"\3" + data("text") + b"\4\1")


def siphash(key, message):
    """SipHash-1-3."""
    k0, k1 = struct.unpack("<QQ", key)
    a, b = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    c, d = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573

    def mix(a, b, c, d):
        a = (a + b) & U64
        b = (b << 13 | b >> 51) & U64 ^ a
        a = (a << 32 | a >> 32) & U64
        c = (c + d) & U64
        d = (d << 16 | d >> 48) & U64 ^ c
        a = (a + d) & U64
        d = (d << 21 | d >> 43) & U64 ^ a
        c = (c + b) & U64
        b = (b << 17 | b >> 47) & U64 ^ c
        return a, b, (c << 32 | c >> 32) & U64, d

    whole = len(message) - len(message) % 8
    last = int.from_bytes(message[whole:], "little") | (len(message) & 0xFF) << 56
    for (word,) in [*struct.iter_unpack("<Q", message[:whole]), (last,)]:
        a, b, c, d = mix(a, b, c, d ^ word)
        a ^= word
    c ^= 0xFF
    for _ in range(3):
        a, b, c, d = mix(a, b, c, d)
    return a ^ b ^ c ^ d


def canonical(sort, value):
    if sort == "i":
        return zigzag(value)
    if sort == "r":
        return varint(value[0]) + data(value[1])
    return varint(value) if sort in "ut" else data(value)


def bitmap(features):
    return varint(sum(1 << feature for feature in features))


def row_bytes(kind, row):
    types = COMMON | FEATURES[kind]
    return bitmap(row) + b"".join(canonical(types[f], row[f]) for f in sorted(row))


def key_of(kind, row):
    return b"".join(canonical(FEATURES[kind][f], row[f]) for f in KEYS[kind])


def bounded(kind, row):
    """The row with its values within bounds and what was cut marked; None where it is too large."""
    row, cut = {feature: value for feature, value in row.items() if value is not None}, 0
    for feature, value in row.items():
        if FEATURES[kind][feature] == "s":
            value = value.encode() if isinstance(value, str) else value
            cut |= (len(value) > VALUE_BYTES_MAX) << feature
            row[feature] = value[:VALUE_BYTES_MAX]
    row = row | {2: cut} if cut else row
    return row if len(row_bytes(kind, row)) <= ROW_BYTES_MAX else None


class Table:
    """The rows that are true now, by slot: kind, (kind, key), row; at most `bound` of them."""

    def __init__(self, bound):
        self.rows, self.slots, self.free = {}, {}, list(range(bound))[::-1]

    def put(self, slot, entry):
        self.free.remove(slot)
        self.rows[slot], self.slots[entry[1]] = entry, slot

    def take(self, slot):
        del self.slots[self.rows.pop(slot)[1]]
        self.free.append(slot)

    def hash(self, log, slot):
        kind, _, row = self.rows[slot]
        return siphash(log, struct.pack("<H", kind) + row_bytes(kind, row))


class Body:
    """The ops of one chunk, as they are written."""

    def __init__(self, base, slots=None, table=None):
        self.base = self.time = base
        self.ops, self.count, self.last_seq = bytearray(), 0, 0
        self.slots, self.table = slots, table  # None: everything is written in full

    def op(self, operation, kind, *operands):
        self.ops += bytes([operation | min(kind, 31) << 3]) + (varint(kind) if kind > 30 else b"")
        for operand in operands:
            self.ops += operand

    def preamble(self, boot, wall_ms):
        self.op(MARK, 0, boot, varint(wall_ms), varint(STRING_SLOTS if self.slots else 0))

    def at(self, time):
        before, self.time = self.time, time
        return zigzag(time - before)

    def fields(self, kind, row, seq=None):
        types, row = COMMON | FEATURES[kind], row if seq is None else row | {0: seq}
        out = bitmap(row)
        for feature in sorted(row):
            out += self.value("q" if feature == 0 else types[feature], row[feature])
        return out

    def value(self, sort, value):
        if sort == "q":
            before, self.last_seq = self.last_seq, value
            return zigzag(value - before)
        if sort == "t":
            return zigzag(value - self.time)
        if sort == "r":
            slot = self.table.slots.get(value) if self.table else None
            return b"\0" + canonical("r", value) if slot is None else varint(slot + 1)
        if sort in "sp" and self.slots:
            return self.slots.string(value)
        return b"\0" + data(value) if sort in "sp" else canonical(sort, value)


class StringSlots:
    """The strings that the reader of this segment was told to keep; the oldest is replaced."""

    def __init__(self):
        self.slot_by_string, self.strings = {}, [None] * STRING_SLOTS
        self.next = 0

    def string(self, value):
        if value in self.slot_by_string:
            return varint(self.slot_by_string[value] + 2)
        if not 3 < len(value) < 256:
            return b"\0" + data(value)
        slot, self.next = self.next, (self.next + 1) % STRING_SLOTS
        self.slot_by_string.pop(self.strings[slot], None)
        self.strings[slot], self.slot_by_string[value] = value, slot
        return b"\1" + varint(slot) + data(value)


def chunk(flags, seq, first_index, part, digest, body):
    """A chunk as it is spooled, sent and chained."""
    head = bytes([flags, 1]) + varint(seq) + varint(first_index) + varint(body.count)
    low = struct.pack("<I", digest & 0xFFFFFFFF)
    return head + varint(part) + varint(body.base) + low + data(bytes(body.ops))


def first_index(chunk):
    reader = Reader(chunk[2:])
    reader.varint()
    return reader.varint()


def chain_start(deployment, sensor, lane, log):
    parts = b"lapwing-chain-1" + deployment + sensor + bytes([lane]) + log
    return hashlib.sha256(parts).digest()
