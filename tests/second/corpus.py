"""The machine that this sensor observes: a corpus, line by line, as facts in the bulk log.

A line with `seq` is one fact with that `source_seq`. What the table needs besides (a row is forgotten
where there is no room) is a fact without one. Lines are counted, and the count goes into the spool
with the chunk: so a start reads on behind the last chunk that was spooled.
"""

import ipaddress
import json
import struct
import time

import chunks
from chunks import CONNECTION, DNS, FILE_EVENT, NOTE, PROCESS, Body, StringSlots, Table

ROWS = 1024  # that the table holds; a server may take fewer
LINES = 64  # read in one turn, so that the connection is not left waiting
CLOSE_S, SEGMENT_AGE_S, RESYNC_S = 0.25, 86400, 60  # LOG-011, LOG-006, LOG-010
TICK_NS, START_NS = 10_000_000, 1_000_000_000  # start ticks; the corpus begins 1 s after the boot
ACTIONS = {"file_create": 1, "file_modify": 2}
TYPES = {"A": 1, "AAAA": 28}


def ip(text):
    return ipaddress.ip_address(text).packed


class Machine:
    def __init__(self, sensor, options):
        self.sensor, self.rate, self.path = sensor, options.rate, options.corpus
        command = sensor.command
        self.collecting = command["collecting"] if command else True
        self.bound, self.wish = ROWS, None
        self.started, self.read, self.resynced = time.monotonic(), 0, -RESYNC_S
        self.rewind()

    def rewind(self):
        """The machine as it was behind the last spooled chunk, without saying so again."""
        self.file = open(self.path, "rb")  # noqa: SIM115: it stays open
        first = self.file.readline()
        self.first_ts = json.loads(first)["ts"] if first else 0
        self.file.seek(0)
        self.lines, self.time, self.at_end = 0, START_NS, False
        self.table, self.processes, self.connections = Table(self.bound), {}, {}
        self.log, self.body, self.digest = None, None, 0
        self.begin_segment()
        for _ in range(self.sensor.spool.lines):
            self.take(self.file.readline())

    def begin_segment(self):
        self.close_chunk()
        self.wants_segment = True

    def wall_ms(self, at):
        return (self.first_ts + at - START_NS) // 1_000_000

    def produce(self, now, room):
        """Reads what the corpus has by now; it waits where the spool is full."""
        due = int((now - self.started) * self.rate) if self.rate else self.read + LINES
        for _ in range(min(LINES, due - self.read) if room and self.collecting else 0):
            line = self.file.readline()
            if not line.endswith(b"\n"):
                self.file.seek(-len(line), 1)
                self.at_end = True
                self.close_chunk()
                break
            self.open_chunk(now)
            self.take(line)
            self.read += 1
        if self.body and now - self.opened > CLOSE_S:
            self.close_chunk()
        if self.wish is not None and now - self.resynced > RESYNC_S and self.log:
            self.resynced, self.wish = now, None
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
        body, self.body = getattr(self, "body", None), None
        if body and body.count:
            self.delta_bytes += self.append(0, 0, body)

    def append(self, flags, part, body):
        log, lines = self.log, self.lines
        chunk = chunks.chunk(flags, log.next_seq, log.next_index, part, self.digest, body)
        log.append(chunk, body.count, part, lines)
        return len(chunk)

    def keyframe(self, now):
        """LOG-005: a segment opens with the whole table."""
        self.log, self.slots = self.sensor.spool.lanes[0][-1], StringSlots()
        self.digest = self.table.digest(self.log.id)
        self.wants_segment, self.is_defined, self.wish = False, False, None
        self.segment_at, self.delta_bytes, self.keyframe_bytes, part = now, 0, 0, 0
        body = Body(self.time, self.slots, self.table)
        body.preamble(self.sensor.boot, self.wall_ms(self.time))
        for slot, (kind, _, row, at) in sorted(self.table.rows.items()):
            if len(body.ops) > chunks.PART_BYTES:
                self.keyframe_bytes += self.append(chunks.KEYFRAME, part, body)
                body, part = Body(self.time, self.slots, self.table), part + 1
            place = chunks.varint(slot)
            body.op(chunks.PUT, kind, place, body.at(at), body.fields(kind, row))
        body.op(chunks.MARK, 1, chunks.varint(len(self.table.rows)), struct.pack("<Q", self.digest))
        flags = chunks.KEYFRAME | chunks.KEYFRAME_LAST
        self.keyframe_bytes += self.append(flags, part, body)

    def resync(self, at_seq):
        """LOG-010: a new segment, unless one was begun since; at most one a minute."""
        if self.sensor.spool.lanes[0][-1].segments[-1].first_seq <= at_seq:
            self.wish = at_seq

    def handle_rows_max(self, rows_max):
        """LOG-009: what the server has no room for is forgotten."""
        if rows_max < self.bound:
            self.begin_segment()
            self.bound = self.table.bound = rows_max
            self.table.free = [slot for slot in self.table.free if slot < rows_max]
            beyond = [slot for slot in self.table.rows if slot >= rows_max]
            for slot in beyond:
                self.forget(slot)

    def forsake(self, log):
        """This log is not written to any more: what is not yet in the spool is read again."""
        if log is self.log:
            self.body = None
            self.rewind()

    def write(self, operation, kind, place, at, row, seq):
        """One fact; `place` is a slot or None. While the table is rebuilt there is no chunk."""
        if self.body is None:
            return
        body, seq = self.body, seq
        slot = b"" if place is None else chunks.varint(place)
        body.op(operation, kind, slot, body.at(at), body.fields(kind, row, seq))
        body.count += 1

    def forget(self, slot):
        self.change_digest(slot, -1)
        self.table.take(slot)
        if self.body is not None:
            self.body.op(chunks.FORGET, 0, chunks.varint(slot))
            self.body.count += 1

    def change_digest(self, slot, sign):
        if self.body is not None and slot in self.table.rows:
            change = sign * self.table.hash(self.log.id, slot)
            self.digest = (self.digest + change) & chunks.U64

    def put(self, kind, row, seq):
        row = self.bounded(kind, row)
        if row is None:
            return None
        key = (kind, chunks.key_of(kind, row))
        if key not in self.table.slots and not self.table.free:
            self.forget(min(self.table.rows, key=lambda slot: self.table.rows[slot][3]))
        self.change_digest(self.table.slots.get(key), -1)
        slot = self.table.put(kind, row, self.time)
        self.change_digest(slot, 1)
        self.write(chunks.PUT, kind, slot, self.time, row, seq)
        return key

    def remove(self, key, kind, row, seq, key_row):
        """The end of a row; of one that is not in the table, with its key."""
        slot = self.table.slots.get(key)
        if slot is None and not self.table.free:
            self.forget(min(self.table.rows, key=lambda slot: self.table.rows[slot][3]))
        if slot is None:
            row, slot = row | key_row, self.table.free[-1]
        self.change_digest(slot, -1)
        self.write(chunks.REMOVE, kind, slot, self.time, row, seq)
        if slot in self.table.rows:
            self.table.take(slot)

    def event(self, kind, row, seq):
        row = self.bounded(kind, row)
        if row is not None:
            self.write(chunks.EVENT, kind, None, self.time, row, seq)

    def bounded(self, kind, row):
        bounded = chunks.bounded(kind, {f: v for f, v in row.items() if v is not None})
        if bounded is None and self.body is not None:
            self.body.op(chunks.DROPPED, 0, b"\1\1")  # one fact, TooLarge
            self.body.count += 1
        return bounded

    def take(self, line):
        """One line of the corpus: one fact."""
        e = json.loads(line)
        self.lines += 1
        self.time = e["ts"] - self.first_ts + START_NS
        sort, seq, pid = e.get("type"), e["seq"], e.get("pid")
        process, ticks = self.processes.get(pid), self.time // TICK_NS
        if sort == "process_start":
            row = {3: pid, 4: ticks, 5: self.processes.get(e.get("ppid")), 6: e["path"]}
            row |= {7: e["cmdline"], 8: e["uid"], 9: e["user"], 10: bytes.fromhex(e["sha256"])}
            self.processes[pid] = self.put(PROCESS, row | {11: e["cwd"], 13: self.time}, seq)
        elif sort == "process_end":
            row = {14: e["exit_code"], 15: self.time, 16: e["duration_ms"]}
            row |= {17: e["utime_us"], 18: e["stime_us"]}
            self.processes.pop(pid, None)
            self.remove(process, PROCESS, row, seq, {3: pid, 4: ticks})
        elif sort in ("tcp_connect", "tcp_close"):
            ends = {3: 6, 4: ip(e["saddr"]), 5: e["sport"], 6: ip(e["daddr"]), 7: e["dport"]}
            which, row = tuple(ends.values()), ends | {8: self.time}
            if sort == "tcp_connect":
                row |= {9: process, 10: 1, 12: e["user"], 17: e["path"]}
                self.connections[which] = self.put(CONNECTION, row, seq)
            else:
                end = {13: e["bytes_sent"], 14: e["bytes_recv"], 15: e["duration_ms"]}
                self.remove(self.connections.pop(which, None), CONNECTION, end, seq, row)
        elif sort in ACTIONS:
            row = {3: e["file"], 4: ACTIONS[sort], 5: process, 6: e["user"], 7: e["size"]}
            self.event(FILE_EVENT, row | {8: int(e["mode"], 8), 9: e["inode"], 13: e["path"]}, seq)
        elif sort == "dns_query":
            row = {3: e["qname"], 4: TYPES.get(e["qtype"], 0), 5: 0, 6: ",".join(e["answers"])}
            self.event(DNS, row | {7: process, 9: e["user"], 10: e["path"]}, seq)
        else:
            if self.body is not None and not self.is_defined:
                self.body.op(chunks.DEFINE, 0, chunks.data(chunks.NOTE_DEFINITION))
                self.is_defined = True
            self.event(NOTE, {3: line.rstrip(b"\n")}, seq)
