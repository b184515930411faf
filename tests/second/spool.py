"""What must outlive the process: logs of chunks in files, and where each stands.

A folder for each log; in it a file of JSON lines for each segment. A chunk is on the disk (synced)
before it is sent. A line that is torn was never sent, and nothing from it on is believed.
"""

import hashlib
import json
import os
import shutil
from collections import namedtuple

from chunks import KEYFRAME, chain_start, first_index

Segment = namedtuple("Segment", "path seq index chain")  # what stands before its first chunk


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def replace(path, value):
    """Writes JSON whole or not at all."""
    with open(path + ".new", "w", encoding="ascii") as file:
        json.dump(value, file)
    sync(path + ".new")
    os.rename(path + ".new", path)
    sync(os.path.dirname(path))


def read(path):
    try:
        with open(path, encoding="ascii") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


class Log:
    """One log of one lane: its chunks, its chain, and what servers acknowledged of it."""

    def __init__(self, folder, who):
        self.folder, self.about = folder, read(folder + "/log.json")
        self.lane, self.id = self.about["lane"], bytes.fromhex(self.about["log"])
        self.next_seq, self.next_index, self.lines = 1, 1, self.about["lines"]
        self.chunks, self.segments = {}, []
        self.chains = {0: chain_start(*who, self.lane, self.id)}  # the chain behind each chunk
        for name in sorted(name for name in os.listdir(folder) if name.endswith(".segment")):
            self.load(os.path.join(folder, name))
        progress = read(folder + "/progress.json") or {"acked": 0, "safe": 0, "runs": []}
        self.acked, self.safe = min(progress["acked"], self.made), progress["safe"]
        self.runs = progress["runs"]  # [server, from, to]: who acknowledged what, oldest first
        self.loaded_index = self.next_index

    @property
    def made(self):
        return self.next_seq - 1

    @property
    def first_seq(self):
        return self.segments[0].seq if self.segments else self.next_seq

    def load(self, path):
        with open(path, "rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    return
                if "chunk" in record:
                    self.take(bytes.fromhex(record["chunk"]), record["index"], record["lines"])
                elif self.segments and record["seq"] != self.next_seq:
                    return
                else:
                    segment = Segment(path, record["seq"], record["index"], record["chain"])
                    self.segments.append(segment._replace(chain=bytes.fromhex(segment.chain)))
                    self.next_seq, self.next_index = segment.seq, segment.index
                    self.chains[self.made] = self.segments[-1].chain

    def take(self, chunk, next_index, lines):
        chain = hashlib.sha256(self.chains[self.made] + chunk).digest()
        self.chunks[self.next_seq], self.chains[self.next_seq] = chunk, chain
        self.next_seq, self.next_index, self.lines = self.next_seq + 1, next_index, lines

    def append(self, chunk, count, part, lines):
        """Puts one chunk into the spool; it may be sent from then on."""
        opens = chunk[0] & KEYFRAME and not part or self.lane and self.made % 64 == 0
        text, index = "", self.next_index + count
        if opens or not self.segments:
            path, chain = f"{self.folder}/{self.next_seq:020}.segment", self.chains[self.made]
            self.segments.append(Segment(path, self.next_seq, self.next_index, chain))
            head = {"seq": self.next_seq, "index": self.next_index, "chain": chain.hex()}
            text = json.dumps(head) + "\n"
        text += json.dumps({"chunk": chunk.hex(), "index": index, "lines": lines}) + "\n"
        with open(self.segments[-1].path, "a", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync(self.folder)
        self.take(chunk, index, lines)

    def acknowledge(self, stored, safe, server):
        """A server said that it has everything up to `stored`."""
        self.safe = max(self.safe, safe)
        if stored > self.acked:
            if self.runs and self.runs[-1][0] == server:
                self.runs[-1][2] = stored
            else:
                self.runs.append([server, self.acked + 1, stored])
            self.acked = stored
        if len(self.runs) > 8:  # HEL-005: the oldest two become one
            self.runs[:2] = [[self.runs[1][0], self.runs[0][1], self.runs[1][2]]]
        place = {"acked": self.acked, "safe": self.safe, "runs": self.runs}
        replace(self.folder + "/progress.json", place)
        # DLV-006: frees the segments that are safe and lie before the acknowledged place's own.
        while len(self.segments) > 1 and self.segments[1].seq <= min(self.safe + 1, self.acked):
            os.remove(self.segments[0].path)
            for seq in range(self.segments.pop(0).seq, self.segments[0].seq):
                del self.chunks[seq], self.chains[seq - 1]

    def unacked_facts(self):
        chunk = self.chunks.get(self.acked + 1)
        return self.next_index - first_index(chunk) if chunk else 0


class Spool:
    """All logs of a sensor, by lane, oldest first; the last of a lane is the one that is written."""

    def __init__(self, folder, deployment, sensor):
        self.folder, self.who = folder, (deployment, sensor)
        os.makedirs(folder, exist_ok=True)
        clean = os.path.exists(folder + "/clean")
        if clean:
            os.remove(folder + "/clean")
            sync(folder)
        names = sorted(name for name in os.listdir(folder) if name.endswith(".log"))
        self.next = int(names[-1][:8]) + 1 if names else 1
        logs = [Log(os.path.join(folder, name), self.who) for name in names]
        self.lanes = [[log for log in logs if log.lane == lane] for lane in (0, 1)]
        for lane, known in enumerate(self.lanes):
            if not clean or not known:  # HEL-032: no old log is appended to
                self.open_log(lane, 1 if known else 0)
            for log in known[:-1]:
                if log.acked == log.made:
                    self.remove(log)

    def open_log(self, lane, cause):
        """Begins a log; the lane's last one is its parent."""
        parent, lines = None, 0
        if self.lanes[lane]:
            old = self.lanes[lane][-1]
            parent = [old.id.hex(), old.next_seq, old.next_index, old.chains[old.made].hex()]
            lines = old.lines
        path, self.next = f"{self.folder}/{self.next:08}.log", self.next + 1
        os.makedirs(path + ".new", exist_ok=True)
        about = {"lane": lane, "log": os.urandom(16).hex(), "cause": cause, "parent": parent}
        replace(path + ".new/log.json", about | {"lines": lines})
        os.rename(path + ".new", path)
        sync(self.folder)
        self.lanes[lane].append(Log(path, self.who))

    def remove(self, log):
        self.lanes[log.lane].remove(log)
        shutil.rmtree(log.folder)
        sync(self.folder)

    def mark_clean(self):
        replace(self.folder + "/clean", True)
