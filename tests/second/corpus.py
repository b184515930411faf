"""The machine that this sensor observes: a corpus, line by line, as facts in the bulk log.

A line is one fact, whose `source_seq` is the line's `seq`. What is told besides (a row is forgotten
where the table has no room) has none. How many lines were read goes into the spool with each chunk:
so a start reads on behind the last chunk that was spooled.
"""

import ipaddress
import json
import struct
import time
from collections import deque

import chunks
from chunks import CONNECTION, DNS, FILE_EVENT, NOTE, PROCESS, PUT, REMOVE, Body, StringSlots, Table
from wire import U64, data, varint

ROWS = 1024  # that the table holds; a server may take fewer
LINES = 64  # read in one turn, so that the connection is not left waiting
CLOSE_S, SEGMENT_AGE_S, RESYNC_S = 0.25, 86400, 60  # LOG-011, LOG-006, LOG-010
START_NS = 1_000_000_000  # the corpus begins 1 s after the boot
TYPES = {"A": 1, "AAAA": 28}


def ip(text):
    return ipaddress.ip_address(text).packed


class Machine:
    """The table, and the chunk and the segment that are being written."""

    def __init__(self, sensor, options):
        self.sensor, self.rate, self.path = sensor, options.rate, options.corpus
        self.collecting = sensor.command["collecting"] if sensor.command else True
        self.bound, self.wants_resync, self.resynced = ROWS, False, -RESYNC_S
        self.started, self.count, self.resyncs = time.monotonic(), 0, 0
        self.wanted, self.waits = deque(), bool(options.stdin)
        self.rewind()

    def rewind(self):
        """The machine as it was behind the last spooled chunk; nothing of that is said again."""
        self.file = open(self.path, "rb")  # noqa: SIM115: it stays open
        first = self.file.readline()
        self.first_ts = json.loads(first)["ts"] if first else 0
        self.file.seek(0)
        self.lines, self.time, self.at_end, self.wants_segment = 0, START_NS, False, True
        self.table, self.starts, self.digest = Table(self.bound), {}, 0
        self.log = self.body = None
        for _ in range(self.sensor.spool.lanes[0][-1].lines):
            self.take(self.file.readline())

    def begin_segment(self):
        self.close_chunk()
        self.wants_segment = True

    def wall_ms(self):
        return (self.first_ts + self.time - START_NS) // 1_000_000

    def produce(self, now, room):
        """Reads what the corpus has by now; it waits where the spool is full."""
        due = int((now - self.started) * self.rate) if self.rate else self.count + LINES
        if self.waits:
            due = self.count + (self.wanted.popleft() if self.wanted and room else 0)
        for _ in range(min(LINES, due - self.count) if room and self.collecting else 0):
            line = self.file.readline()
            if not line.endswith(b"\n"):
                self.file.seek(-len(line), 1)
                self.at_end = True
                self.close_chunk()
                break
            self.open_chunk(now)
            self.take(line)
            self.count += 1
        if self.body and (self.waits or now - self.opened > CLOSE_S):
            self.close_chunk()
        if self.wants_resync and now - self.resynced > RESYNC_S:
            self.resynced = now
            self.close_chunk()
            self.keyframe(now)

    def open_chunk(self, now):
        """A chunk closes between two lines, well below its bounds."""
        body, log = self.body, self.sensor.spool.lanes[0][-1]
        if body and (len(body.ops) > chunks.BODY_BYTES or body.count >= chunks.FACTS):
            self.close_chunk()
        if self.body is None:
            long = self.log and self.delta_bytes > max(65536, 32 * self.keyframe_bytes)
            old = self.log and now - self.segment_at > SEGMENT_AGE_S
            if self.wants_segment or long or old or self.log is not log:
                self.keyframe(now)
            self.body, self.opened = Body(self.time, self.slots, self.table), now

    def close_chunk(self):
        body, self.body = self.body, None
        if body and body.count:
            self.delta_bytes += self.append(0, 0, body)

    def append(self, flags, part, body):
        log = self.log
        chunk = chunks.chunk(flags, log.next_seq, log.next_index, part, self.digest, body)
        log.append(chunk, body.count, part, self.lines)
        return len(chunk)

    def keyframe(self, now):
        """LOG-005: a segment opens with the whole table."""
        self.log, self.slots = self.sensor.spool.lanes[0][-1], StringSlots()
        self.digest = sum(self.table.hash(self.log.id, slot) for slot in self.table.rows) & U64
        self.wants_segment = self.is_defined = self.wants_resync = False
        self.segment_at, self.delta_bytes, self.keyframe_bytes, part = now, 0, 0, 0
        body = Body(self.time, self.slots, self.table)
        body.preamble(self.sensor.boot, self.wall_ms())
        for slot, (kind, _, row) in self.table.rows.items():
            if len(body.ops) > chunks.PART_BYTES:
                self.keyframe_bytes += self.append(chunks.KEYFRAME, part, body)
                body, part = Body(self.time, self.slots, self.table), part + 1
            body.op(PUT, kind, varint(slot), body.at(self.time), body.fields(kind, row))
        body.op(chunks.MARK, 1, varint(len(self.table.rows)), struct.pack("<Q", self.digest))
        flags = chunks.KEYFRAME | chunks.KEYFRAME_LAST
        self.keyframe_bytes += self.append(flags, part, body)

    def resync(self, at_seq):
        """LOG-010: a new segment, unless one was begun since."""
        newest, self.resyncs = self.sensor.spool.lanes[0][-1].segments[-1], self.resyncs + 1
        self.wants_resync = self.wants_resync or newest.seq <= at_seq

    def handle_rows_max(self, rows_max):
        """LOG-009: a table that the server has no room for is made anew, and stated."""
        if rows_max < self.bound:
            self.close_chunk()
            self.bound = rows_max
            self.rewind()

    def forsake(self, log):
        """This log is not written to any more: what is not yet in the spool is read again."""
        if log is self.log:
            self.rewind()

    def count_fact(self, operation, kind, *operands):
        self.body.op(operation, kind, *operands)
        self.body.count += 1

    def event(self, kind, row, seq):
        row = chunks.bounded(kind, row)
        if row is None:
            self.drop()
        elif self.body:
            body = self.body
            self.count_fact(chunks.EVENT, kind, body.at(self.time), body.fields(kind, row, seq))

    def drop(self):
        if self.body:
            self.count_fact(chunks.DROPPED, 0, b"\1\1")  # one fact, TooLarge

    def state(self, operation, kind, row, seq):
        """A row is so from now on, or ends. `row` has its key; the rebuilt table has no chunk."""
        row, key = chunks.bounded(kind, row), (kind, chunks.key_of(kind, row))
        if row is None:
            return self.drop()
        slot = self.table.slots.get(key)
        if slot is None and not self.table.free:
            self.change(next(iter(self.table.rows)), None)
            if self.body:
                self.count_fact(chunks.FORGET, 0, varint(self.table.free[-1]))
        slot = self.table.free[-1] if slot is None else slot
        self.change(slot, (kind, key, row) if operation == PUT else None)
        if self.body:
            body = self.body
            place, at = varint(slot), body.at(self.time)
            self.count_fact(operation, kind, place, at, body.fields(kind, row, seq))
        return key

    def change(self, slot, entry):
        """The table, and its digest where there is one to keep."""
        table, log = self.table, self.log if self.body else None
        if slot in table.rows:
            self.digest -= table.hash(log.id, slot) if log else 0
            table.take(slot)
        if entry:
            table.put(slot, entry)
            self.digest += table.hash(log.id, slot) if log else 0
        if log:
            self.digest &= U64

    def take(self, line):
        """One line of the corpus: one fact."""
        e = json.loads(line)
        self.lines += 1
        self.time = e["ts"] - self.first_ts + START_NS
        sort, seq, pid = e.get("type"), e["seq"], e.get("pid")
        process = self.starts.get(pid)
        if sort in ("process_start", "process_end"):
            key = {3: pid, 4: self.time // 10_000_000}
            if sort == "process_start":
                self.starts[pid] = key
                row = {5: self.reference(self.starts.get(e["ppid"])), 6: e["path"], 7: e["cmdline"]}
                row |= {8: e["uid"], 9: e["user"], 10: bytes.fromhex(e["sha256"]), 11: e["cwd"]}
                self.state(PUT, PROCESS, key | row | {13: self.time}, seq)
            else:
                row = {14: e["exit_code"], 15: self.time, 16: e["duration_ms"]}
                row |= {17: e["utime_us"], 18: e["stime_us"]}
                self.state(REMOVE, PROCESS, self.starts.pop(pid, key) | row, seq)
        elif sort in ("tcp_connect", "tcp_close"):
            ends = {3: 6, 4: ip(e["saddr"]), 5: e["sport"], 6: ip(e["daddr"]), 7: e["dport"]}
            which, row = tuple(ends.values()), ends | {8: self.time}
            if sort == "tcp_connect":
                self.starts[which] = row
                row = row | {9: self.reference(process), 10: 1, 12: e["user"], 17: e["path"]}
                self.state(PUT, CONNECTION, row, seq)
            else:
                row = self.starts.pop(which, row)
                end = {13: e["bytes_sent"], 14: e["bytes_recv"], 15: e["duration_ms"]}
                self.state(REMOVE, CONNECTION, row | end, seq)
        elif sort in ("file_create", "file_modify"):
            row = {3: e["file"], 4: 1 if sort == "file_create" else 2, 5: self.reference(process)}
            row |= {6: e["user"], 7: e["size"], 8: int(e["mode"], 8), 9: e["inode"], 13: e["path"]}
            self.event(FILE_EVENT, row, seq)
        elif sort == "dns_query":
            row = {3: e["qname"], 4: TYPES.get(e["qtype"], 0), 5: 0, 6: ",".join(e["answers"])}
            row |= {7: self.reference(process), 9: e["user"], 10: e["path"]}
            self.event(DNS, row, seq)
        else:
            if self.body and not self.is_defined:
                self.body.op(chunks.DEFINE, 0, data(chunks.NOTE_DEFINITION))
                self.is_defined = True
            self.event(NOTE, {3: line.rstrip(b"\n")}, seq)

    def reference(self, key):
        return key and (PROCESS, chunks.key_of(PROCESS, key))
