"""What must outlive the process: logs of chunks in files, where each stands, and who this sensor is.

A folder for each log; in it a file for each segment. A record is on the disk (synced) before the
chunk in it is sent. Whatever is torn at the end of a file was never sent and is not believed.
"""

import hashlib
import json
import os
import shutil
import struct
import zlib

from chunks import KEYFRAME, SELF_CONTAINED, URGENT, chain_start
from wire import Reader

RECORD, BEHIND = struct.Struct("<II"), struct.Struct("<QQ")  # length, sum; next index, corpus lines
HEAD = struct.Struct("<QQ32s")  # before a segment: its first seq, its first index, the chain


def replace(path, value):
    """Writes JSON whole or not at all, and so that a power cut leaves one of both."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)
    sync_folder(os.path.dirname(path))


def sync_folder(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


class Segment:
    """A run of chunks that decodes by itself: one file."""

    def __init__(self, path, first_seq, first_index, chain):
        self.path, self.first_seq, self.first_index, self.chain = path, first_seq, first_index, chain


class Log:
    """One log of one lane: its chunks, its chain, and what servers acknowledged of it."""

    def __init__(self, folder, who):
        self.folder = folder
        self.about = read(folder + "/log.json")
        self.lane, self.id = self.about["lane"], bytes.fromhex(self.about["log"])
        self.start = chain_start(*who, self.lane, self.id)
        self.next_seq, self.next_index, self.lines = 1, 1, self.about["lines"]
        self.chunks, self.segments, self.chains, self.file = {}, [], {0: self.start}, None
        for name in sorted(name for name in os.listdir(folder) if name.endswith(".segment")):
            self.load(os.path.join(folder, name))
        progress = read(folder + "/progress.json") or {"acked": 0, "safe": 0, "runs": []}
        self.acked, self.safe = min(progress["acked"], self.made), progress["safe"]
        self.runs = progress["runs"]  # [server, from, to]: who acknowledged what, oldest first
        self.loaded_index = self.next_index
        if self.acked:
            self.chains.setdefault(self.acked, bytes.fromhex(progress["chain"]))

    @property
    def made(self):
        return self.next_seq - 1

    @property
    def first_seq(self):
        return self.segments[0].first_seq if self.segments else self.next_seq

    @property
    def chain(self):
        return self.chains[self.made]

    def load(self, path):
        with open(path, "rb") as file:
            whole = file.read()
        if len(whole) < HEAD.size:
            return
        seq, index, chain = HEAD.unpack_from(whole)
        if self.segments and seq != self.next_seq:
            return  # an earlier file is damaged; what is behind the hole is not believed
        self.next_seq, self.next_index, self.chains[seq - 1] = seq, index, chain
        self.segments.append(Segment(path, seq, index, chain))
        at = HEAD.size
        while at + RECORD.size <= len(whole):
            length, total = RECORD.unpack_from(whole, at)
            payload = whole[at + RECORD.size : at + RECORD.size + length]
            if len(payload) < length or zlib.crc32(payload) != total:
                return
            self.take(payload[BEHIND.size :], *BEHIND.unpack_from(payload))
            at += RECORD.size + length

    def take(self, chunk, next_index, lines):
        seq = self.next_seq
        self.chunks[seq] = chunk
        self.chains[seq] = hashlib.sha256(self.chains[seq - 1] + chunk).digest()
        self.next_seq, self.next_index, self.lines = seq + 1, next_index, lines

    def append(self, chunk, count, part, lines):
        """Puts one chunk into the spool; it may be sent from then on."""
        opens = chunk[0] & KEYFRAME and not part
        if chunk[0] & URGENT and chunk[0] & SELF_CONTAINED:
            opens = not self.segments or len(self.chunks) % 64 == 0
        if opens:
            self.open_segment()
        payload = BEHIND.pack(self.next_index + count, lines) + chunk
        self.file.write(RECORD.pack(len(payload), zlib.crc32(payload)) + payload)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.take(chunk, self.next_index + count, lines)

    def open_segment(self):
        path = f"{self.folder}/{self.next_seq:020}.segment"
        self.segments.append(Segment(path, self.next_seq, self.next_index, self.chain))
        if self.file:
            self.file.close()
        self.file = open(path, "wb")  # noqa: SIM115: it stays open as long as the segment
        self.file.write(HEAD.pack(self.next_seq, self.next_index, self.chain))
        sync_folder(self.folder)

    def acknowledge(self, stored, safe, server):
        """A server said that it has everything up to `stored`."""
        self.safe = max(self.safe, safe)
        if stored > self.acked:
            if self.runs and self.runs[-1][0] == server:
                self.runs[-1][2] = stored
            else:
                self.runs.append([server, self.acked + 1, stored])
            self.acked = stored
        while len(self.runs) > 8:  # HEL-005: the oldest two become one
            self.runs[:2] = [[self.runs[1][0], self.runs[0][1], self.runs[1][2]]]
        self.save()
        self.trim()

    def save(self):
        chain = self.chains[self.acked].hex()
        place = {"acked": self.acked, "safe": self.safe, "chain": chain, "runs": self.runs}
        replace(self.folder + "/progress.json", place)

    def trim(self):
        """Frees the segments that are safe, and that lie before the acknowledged place's own."""
        while len(self.segments) > 1:
            after = self.segments[1].first_seq
            if after - 1 > self.safe or after > self.acked:
                return
            os.remove(self.segments[0].path)
            for seq in range(self.segments.pop(0).first_seq, after):
                del self.chunks[seq]
                self.chains.pop(seq - 1, None)

    def index_behind(self, seq):
        """The index of the next fact behind a chunk that may be freed, but not the next one."""
        if seq + 1 not in self.chunks:
            return self.next_index
        reader = Reader(self.chunks[seq + 1][2:])
        reader.varint()
        return reader.varint()

    def restart_at(self):
        """The segment of the first chunk that nobody acknowledged; the last where there is none."""
        fits = [segment for segment in self.segments if segment.first_seq <= self.acked + 1]
        return fits[-1] if fits else None


class Spool:
    """All logs of a sensor, oldest first, and its marks."""

    def __init__(self, folder, deployment, sensor):
        self.folder, self.who = folder, (deployment, sensor)
        os.makedirs(folder, exist_ok=True)
        clean = os.path.exists(folder + "/clean")
        if clean:
            os.remove(folder + "/clean")
            sync_folder(folder)
        names = sorted(name for name in os.listdir(folder) if name.endswith(".log"))
        self.next = int(names[-1][:8]) + 1 if names else 1
        logs = [Log(os.path.join(folder, name), self.who) for name in names]
        self.lanes = [[log for log in logs if log.lane == lane] for lane in (0, 1)]
        for lane in (0, 1):
            if not clean or not self.lanes[lane]:
                self.open_log(lane, 1 if self.lanes[lane] else 0)
            self.drop_finished(lane)

    @property
    def lines(self):
        """Lines of the corpus that are in the spool, or were."""
        return self.lanes[0][-1].lines

    def open_log(self, lane, cause):
        """Begins a log; the lane's last one is its parent."""
        old, parent = (self.lanes[lane] or [None])[-1], None
        if old:
            parent = [old.id.hex(), old.next_seq, old.next_index, old.chain.hex()]
        path = f"{self.folder}/{self.next:08}.log"
        self.next += 1
        os.makedirs(path + ".new", exist_ok=True)
        about = {"lane": lane, "log": os.urandom(16).hex(), "cause": cause, "parent": parent}
        replace(path + ".new/log.json", about | {"lines": old.lines if old else 0})
        os.rename(path + ".new", path)
        sync_folder(self.folder)
        self.lanes[lane].append(Log(path, self.who))
        return self.lanes[lane][-1]

    def drop_finished(self, lane):
        """Removes the old logs of which a server has everything."""
        for log in self.lanes[lane][:-1]:
            if log.acked == log.made:
                self.remove(log)

    def remove(self, log):
        self.lanes[log.lane].remove(log)
        shutil.rmtree(log.folder)
        sync_folder(self.folder)

    def mark_clean(self):
        with open(self.folder + "/clean", "w", encoding="utf-8") as file:
            os.fsync(file.fileno())
        sync_folder(self.folder)
