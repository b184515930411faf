"""One connection to a Detection server, from Hello to its end: what is sent, and what is believed.

Nothing durable depends on it. It raises Closed for whatever ends it; the sensor then waits and makes
another one.
"""

import time

import wire
from wire import Closed, data, option, varint

RESUME, NEW, SERVER_BEHIND, SENSOR_BEHIND, FORKED = range(5)
ROLLED_BACK_LOG, FORKED_LOG = 2, 3  # LogCause
ROLLED_BACK_SERVER = b"\2\0"  # JumpCause Lost(ServerRolledBack)
FACTS_LOST, UNSUPPORTED, FENCED = 26, 19, 10  # of errors.md
HELLO_ACK_S, PING_S, IDLE_S, PROGRESS_S, DRAIN_S = 10, 30, 90, 30, 5
WAITING_BYTES = 65536  # written to the connection and not yet taken by the network


class Lane:
    """What this session knows of one log; it begins anew with each HelloAck."""

    def __init__(self, log, grant):
        self.log, self.jump, self.episode, self.not_before = log, None, 0, 0
        self.next, self.acked = grant["next_seq"], grant["next_seq"] - 1
        self.sent = self.counted = self.acked
        self.limit_seq, self.limit_bytes, self.bytes = grant["seq"], grant["bytes"], 0

    @property
    def in_flight(self):
        return self.sent > self.acked

    def may_send(self, chunk):
        if self.next <= self.counted:
            return True  # DLV-007: what is sent again counts once
        return self.next <= self.limit_seq and self.bytes + len(chunk) <= self.limit_bytes


class Session:
    def __init__(self, sensor, connection):
        self.sensor, self.connection = sensor, connection
        self.lanes, self.server, self.receive_max = {}, None, 0
        self.want_hello = self.established = False
        self.draining = None
        self.heard = self.pinged = self.progress = time.monotonic()
        self.hello()

    def hello(self):
        """HEL-002: the oldest log of each lane that is not yet stored, or the one that is written."""
        sensor, self.want_hello, self.waits_since = self.sensor, False, time.monotonic()
        self.logs = [lane[0] for lane in sensor.spool.lanes]
        last = sensor.command and varint(sensor.command["issuer"]) + varint(sensor.command["seq"])
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
        self.watch(time.monotonic())
        if self.waits_since is not None or self.draining:
            return
        if not self.want_hello:
            for lane in (self.lanes[1], self.lanes[0]):  # DLV-013: the urgent lane first
                self.send(lane)
        elif not any(lane.in_flight for lane in self.lanes.values()):
            self.hello()

    def watch(self, now):
        flying = any(lane.in_flight for lane in self.lanes.values())
        if self.waits_since is not None and now - self.waits_since > HELLO_ACK_S:
            raise Closed("no HelloAck")
        if self.draining and (not flying or now > self.draining[0]):
            raise Closed("the server is draining", self.draining[1])
        if now - self.heard > IDLE_S:
            raise Closed("the server is silent")
        if now - max(self.heard, self.pinged) > PING_S:
            self.pinged = now
            self.connection.send(wire.PING, varint(1))
        if flying and now - self.progress > PROGRESS_S:
            self.sensor.trouble = 4
            raise Closed("nothing is acknowledged")
        self.progress = self.progress if flying else now

    def handle(self, kind, said):
        if kind == wire.PING:
            self.connection.send(wire.PONG, varint(said["nonce"]))
        elif kind == wire.REFUSED:
            retry = max(said["retry_after_ms"], 5000 if said["code"] == FENCED else 0)
            raise wire.refusal(said | {"retry_after_ms": retry})
        elif kind == wire.CALL:
            self.answer(said)
        elif kind == wire.DRAINING:
            self.sensor.trouble = 3
            self.draining = (time.monotonic() + DRAIN_S, said["retry_after_ms"])
        elif kind == wire.HELLO_ACK and self.waits_since is not None:
            self.handle_hello_ack(said)
        elif kind in (wire.ACK, wire.NACK, wire.RESYNC, wire.COMMAND) and self.established:
            if self.waits_since is None or kind == wire.COMMAND:
                self.handle_of_lane(kind, said)
        elif kind != wire.PONG:
            raise Closed(f"a frame out of place, kind {kind}")

    def handle_of_lane(self, kind, said):
        if kind == wire.COMMAND:
            self.sensor.handle_command(said)
        elif kind == wire.ACK:
            self.handle_ack(self.lanes[said["lane"]], said)
        elif kind == wire.NACK:
            self.handle_nack(self.lanes[said["lane"]], said)
        elif said["lane"] == 0 and self.lanes[0].log is self.sensor.spool.lanes[0][-1]:
            self.sensor.machine.resync(said["at_seq"])

    def handle_hello_ack(self, ack):
        same = [(log.lane, log.id) for log in self.logs]
        if ack["version"] != 1 or [(g["lane"], g["log"]) for g in ack["logs"]] != same:
            raise Closed("a HelloAck for another Hello")
        self.waits_since, self.established = None, True
        self.server, self.receive_max = ack["server"], ack["receive_bytes_max"]
        self.progress = time.monotonic()
        self.sensor.machine.handle_rows_max(ack["rows_max"])
        for log, grant in zip(self.logs, ack["logs"]):
            self.lanes[log.lane] = Lane(log, grant)
            self.resume(self.lanes[log.lane], grant)
            self.finish(log)

    def resume(self, lane, grant):
        """The decision table, HEL-020 to HEL-034, as far as it is the sensor's."""
        log, stored = lane.log, grant["next_seq"] - 1
        other = log.chains.get(stored, grant["chain"]) != grant["chain"]
        if grant["verdict"] == SENSOR_BEHIND:
            return self.abandon(log, ROLLED_BACK_LOG, log.next_index - log.loaded_index)
        if grant["verdict"] == FORKED or (other and stored):
            return self.abandon(log, FORKED_LOG, log.next_index - log.index_behind(log.acked))
        if stored > log.made or other:
            raise Closed("a grant beyond the log, or of another deployment")
        if stored >= log.acked:
            return log.acknowledge(stored, 0, self.server.hex())
        segment, behind = log.restart_at(), grant["verdict"] == SERVER_BEHIND
        last = segment.first_seq - 1
        if stored < last and not (behind and stored >= log.first_seq - 1):
            runs = [run for run in log.runs if run[1] <= last]
            cause = ROLLED_BACK_SERVER if behind else b"\1" + bytes.fromhex(runs[-1][0])
            end = varint(last) + option(segment.first_index - 1) + segment.chain + cause
            lane.jump, lane.next = (last, end), last + 1
        return None

    def abandon(self, log, cause, lost):
        """HEL-023, HEL-024: this log is no longer written nor sent."""
        lane = self.sensor.spool.lanes[log.lane]
        if log is lane[-1]:
            self.sensor.machine.forsake(log)
            self.sensor.spool.open_log(log.lane, cause)
        self.sensor.spool.remove(log)
        self.want_hello = True
        if lost:
            self.sensor.finding(FACTS_LOST, f"log {log.id.hex()} has another end", lost)

    def finish(self, log):
        """Goes on to the lane's next log once a server has all of this one."""
        lane = self.sensor.spool.lanes[log.lane]
        if log in lane[:-1] and log.acked == log.made:
            self.sensor.spool.remove(log)
            self.want_hello = True

    def send(self, lane):
        log = lane.log
        if time.monotonic() < lane.not_before:
            return
        if lane.jump and lane.acked < lane.jump[0] and lane.sent < lane.jump[0]:
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
        known = max(lane.sent, lane.acked)
        if ack["stored"] > known or ack["safe"] > ack["stored"]:
            raise Closed("an Ack of what was not sent")
        lane.limit_seq = max(lane.limit_seq, ack["seq"])
        lane.limit_bytes = max(lane.limit_bytes, ack["bytes"])
        if ack["stored"] > lane.acked:
            lane.acked, self.progress = ack["stored"], time.monotonic()
            lane.next = max(lane.next, lane.acked + 1)
        if lane.log in self.sensor.spool.lanes[lane.log.lane]:
            lane.log.acknowledge(ack["stored"], ack["safe"], self.server.hex())
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
        sensor, code, body = self.sensor, UNSUPPORTED, b"only report is served here"
        if call["method"] == 3:
            produced = b"".join(varint(lane[-1].next_index - 1) for lane in sensor.spool.lanes)
            held = sum(len(c) for lane in sensor.spool.lanes for g in lane for c in g.chunks.values())
            code, body = 0, bytes([sensor.machine.collecting]) + produced + varint(held) + data(b"")
        reply = varint(call["call"]) + b"\0" + varint(code) + data(body)
        self.connection.send(wire.REPLY, reply)
