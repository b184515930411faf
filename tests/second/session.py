"""One connection to a Detection server, from Hello to its end: what is sent, and what is believed.

Nothing durable depends on it. It raises Closed for whatever ends it; the sensor then waits and makes
another one.
"""

import time

import wire
from wire import Closed, data, option, varint

SERVER_BEHIND, SENSOR_BEHIND, FORKED = 2, 3, 4  # LogVerdict
ROLLED_BACK_LOG, FORKED_LOG = 2, 3  # LogCause
ROLLED_BACK_SERVER = b"\2\0"  # JumpCause Lost(ServerRolledBack)
FACTS_LOST, UNSUPPORTED = 26, 19  # of errors.md
HELLO_ACK_S, PING_S, IDLE_S, PROGRESS_S, DRAIN_S = 10, 30, 90, 30, 5
WAITING_BYTES = 65536  # given to the connection and not yet taken by the network


class Lane:
    """What this session knows of one log; it begins anew with each HelloAck."""

    def __init__(self, log, grant):
        self.log, self.jump, self.episode, self.not_before = log, None, 0, 0
        self.next, self.acked = grant["next_seq"], grant["next_seq"] - 1
        self.sent = self.counted = self.acked
        self.limit_seq, self.limit_bytes, self.bytes = grant["seq"], grant["bytes"], 0

    def may_send(self, chunk):
        if self.next <= self.counted:
            return True  # DLV-007: what is sent again counts once
        return self.next <= self.limit_seq and self.bytes + len(chunk) <= self.limit_bytes


class Session:
    """See the module. `step` is called over and over."""

    def __init__(self, sensor, connection):
        self.sensor, self.connection, self.spool = sensor, connection, sensor.spool
        self.lanes, self.draining, self.greeted = {}, None, False
        self.heard = self.pinged = self.progress = time.monotonic()
        self.hello()

    def hello(self):
        """HEL-002: of each lane the oldest log that is not yet stored, or the one that is written."""
        sensor, self.want_hello, self.waits_since = self.sensor, False, time.monotonic()
        self.logs, last = [lane[0] for lane in self.spool.lanes], sensor.command
        last = last and varint(last["issuer"]) + varint(last["seq"])
        body = b"\1\1\0" + data("second-sensor/1") + data(sensor.options.name) + data("Linux")
        body += sensor.boot + varint(wire.FRAME_BYTES_MAX) + b"\0"
        body += bytes([sensor.machine.collecting]) + option(last, bytes) + varint(len(self.logs))
        self.connection.send(wire.HELLO, body + b"".join(map(self.head, self.logs)))

    def head(self, log):
        parent = log.about["parent"]
        if parent:
            numbers = varint(parent[1]) + varint(parent[2])
            parent = bytes.fromhex(parent[0]) + numbers + bytes.fromhex(parent[3])
        runs = b"".join(bytes.fromhex(run[0]) + varint(run[1]) + varint(run[2]) for run in log.runs)
        head = bytes([log.lane]) + log.id + varint(log.about["cause"]) + option(parent, bytes)
        for number in (log.first_seq, log.next_seq, log.next_index, log.acked):
            head += varint(number)
        return head + log.chains[log.acked] + data(runs)

    def step(self, seconds):
        """Reads, answers, and sends what may be sent."""
        for kind, said in self.connection.poll(seconds):
            self.heard = time.monotonic()
            self.handle(kind, said)
        flying = any(lane.sent > lane.acked for lane in self.lanes.values())
        self.watch(time.monotonic(), flying)
        if self.waits_since is not None or self.draining:
            return None
        if self.want_hello:  # HEL-003: once nothing is in flight
            return None if flying else self.hello()
        for lane in (self.lanes[1], self.lanes[0]):  # DLV-013: the urgent lane first
            self.send(lane)
        return None

    def watch(self, now, flying):
        if self.waits_since is not None and now - self.waits_since > HELLO_ACK_S:
            raise Closed("no HelloAck")
        if self.draining and (not flying or now > self.draining[0]):
            raise Closed("the server is draining", self.draining[1])
        if now - self.heard > IDLE_S:
            raise Closed("the server is silent")
        if now - max(self.heard, self.pinged) > PING_S:
            self.pinged = now
            self.connection.send(wire.PING, varint(1))
        self.progress = self.progress if flying else now
        if now - self.progress > PROGRESS_S:
            self.sensor.trouble = 4
            raise Closed("nothing is acknowledged")

    def handle(self, kind, said):
        if kind == wire.PING:
            self.connection.send(wire.PONG, varint(said["nonce"]))
        elif kind == wire.REFUSED:
            raise wire.refusal(said)
        elif kind == wire.CALL:
            self.answer(said)
        elif kind == wire.DRAINING:
            self.sensor.trouble = 3
            self.draining = (time.monotonic() + DRAIN_S, said["retry_after_ms"])
        elif kind == wire.HELLO_ACK and self.waits_since is not None:
            self.handle_hello_ack(said)
        elif kind == wire.COMMAND and self.greeted:
            self.sensor.handle_command(said)
        elif kind in (wire.ACK, wire.NACK, wire.RESYNC) and self.greeted:
            lane = self.lanes[said["lane"]]
            if self.waits_since is not None:
                return  # it speaks of the Hello before
            if kind == wire.ACK:
                self.handle_ack(lane, said)
            elif kind == wire.NACK:
                self.handle_nack(lane, said)
            elif lane.log is self.spool.lanes[0][-1]:
                self.sensor.machine.resync(said["at_seq"])
        elif kind != wire.PONG:
            raise Closed(f"a frame out of place, kind {kind}")

    def handle_hello_ack(self, ack):
        same = [(log.lane, log.id) for log in self.logs]
        if ack["version"] != 1 or [(g["lane"], g["log"]) for g in ack["logs"]] != same:
            raise Closed("a HelloAck for another Hello")
        self.waits_since, self.greeted, self.progress = None, True, time.monotonic()
        self.server, self.receive_max = ack["server"].hex(), ack["receive_bytes_max"]
        self.sensor.machine.handle_rows_max(ack["rows_max"])
        for log, grant in zip(self.logs, ack["logs"]):
            self.lanes[log.lane] = Lane(log, grant)
            self.resume(self.lanes[log.lane], grant)

    def resume(self, lane, grant):
        """The decision table, HEL-020 to HEL-034, as far as it is the sensor's."""
        log, stored = lane.log, grant["next_seq"] - 1
        other = log.chains.get(stored, grant["chain"]) != grant["chain"]
        if grant["verdict"] == SENSOR_BEHIND:
            self.abandon(log, ROLLED_BACK_LOG, log.next_index - log.loaded_index)
        elif grant["verdict"] == FORKED or (other and stored):
            self.abandon(log, FORKED_LOG, log.unacked_facts())
        elif stored > log.made or other:
            raise Closed("a grant beyond the log, or of another deployment")
        elif stored >= log.acked:
            log.acknowledge(stored, 0, self.server)
            self.finish(log)
        else:
            self.fill(lane, grant["verdict"] == SERVER_BEHIND, stored)

    def fill(self, lane, behind, stored):
        """The server lacks some of what was acknowledged: sends it again, or says where it is."""
        log = lane.log
        kept = [part for part in log.segments if part.seq <= log.acked + 1]
        start = kept[0] if behind else kept[-1]
        last = start.seq - 1
        if stored < last:
            runs = [run for run in log.runs if run[1] <= last]
            cause = ROLLED_BACK_SERVER if behind else b"\1" + bytes.fromhex(runs[-1][0])
            lane.jump = (last, varint(last) + option(start.index - 1) + start.chain + cause)
            lane.next = last + 1

    def abandon(self, log, cause, lost):
        """HEL-023, HEL-024: this log is no longer written nor sent."""
        if log is self.spool.lanes[log.lane][-1]:
            self.sensor.machine.forsake(log)
            self.spool.open_log(log.lane, cause)
        self.spool.remove(log)
        self.want_hello = True
        if lost:
            self.sensor.finding(FACTS_LOST, f"log {log.id.hex()} has another end", lost)

    def finish(self, log):
        """Goes on to the lane's next log once a server has all of this one."""
        if log in self.spool.lanes[log.lane][:-1] and log.acked == log.made:
            self.spool.remove(log)
            self.want_hello = True

    def send(self, lane):
        log = lane.log
        if time.monotonic() < lane.not_before:
            return
        if lane.jump and max(lane.acked, lane.sent) < lane.jump[0]:
            start = bytes([log.lane]) + varint(lane.acked + 1)
            self.connection.send(wire.JUMP, start + lane.jump[1])
            lane.sent = lane.counted = lane.jump[0]
        while lane.next <= log.made and len(self.connection.waiting) < WAITING_BYTES:
            chunk = log.chunks[lane.next]
            if len(chunk) + 4 > self.receive_max:
                raise Closed("the server takes no chunks of this size")
            if not lane.may_send(chunk):
                return
            self.connection.send(wire.CHUNK, chunk)
            if lane.next > lane.counted:
                lane.counted, lane.bytes = lane.next, lane.bytes + len(chunk)
            if lane.next % 64 == 0:
                mark = bytes([log.lane]) + varint(lane.next) + log.chains[lane.next]
                self.connection.send(wire.CHAIN_MARK, mark)
            lane.sent = max(lane.sent, lane.next)
            lane.next += 1

    def handle_ack(self, lane, ack):
        if ack["stored"] > max(lane.sent, lane.acked) or ack["safe"] > ack["stored"]:
            raise Closed("an Ack of what was not sent")
        lane.limit_seq = max(lane.limit_seq, ack["seq"])
        lane.limit_bytes = max(lane.limit_bytes, ack["bytes"])
        if ack["stored"] > lane.acked:
            lane.acked, self.progress = ack["stored"], time.monotonic()
            lane.next = max(lane.next, lane.acked + 1)
        if lane.log in self.spool.lanes[lane.log.lane]:
            lane.log.acknowledge(ack["stored"], ack["safe"], self.server)
            self.finish(lane.log)

    def handle_nack(self, lane, nack):
        if nack["episode"] <= lane.episode:
            return
        if not lane.acked < nack["next_seq"] <= lane.sent + 1:
            raise Closed("a Nack of what was not sent, or is stored")
        lane.episode, lane.next = nack["episode"], nack["next_seq"]
        lane.not_before = time.monotonic() + nack["wait"] / 1000
        if lane.jump and lane.next <= lane.jump[0]:
            lane.next, lane.sent = lane.jump[0] + 1, lane.acked

    def answer(self, call):
        """CAL-006: `report`, and nothing else."""
        code, body = UNSUPPORTED, b"only report is served here"
        if call["method"] == 3:
            logs = [log for lane in self.spool.lanes for log in lane]
            produced = b"".join(varint(lane[-1].next_index - 1) for lane in self.spool.lanes)
            held = sum(len(chunk) for log in logs for chunk in log.chunks.values())
            stated = b"".join(
                bytes([log.lane]) + log.id + varint(log.next_index) + varint(log.unacked_facts())
                for log in logs[-16:]
            )
            wall_ms = varint(int(time.time() * 1000))
            body = bytes([self.sensor.machine.collecting]) + produced + varint(held) + b"\0"
            code, body = 0, body + wall_ms + data(stated) + b"\0" + b"\0"
        reply = varint(call["call"]) + b"\0" + varint(code) + data(body)
        self.connection.send(wire.REPLY, reply)
