#!/usr/bin/env python3
"""A second sensor, written from docs/protocol.md and protocol-messages.md alone.

It delivers a corpus: JSON lines whose `seq` becomes `source_seq`, each exactly once, over lost
connections and its own death. It is not fast, observes nothing, and carries out no command but to
start and stop. Its invariants: a chunk is in the spool before it is sent; one session at a time;
nothing is dropped, since the corpus waits when the spool is full.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time

import chunks
import spool
import wire
from corpus import Machine
from session import Session
from wire import Closed, Connection, data, varint

BACKLOG_BYTES = 4 << 20  # of chunks that nobody acknowledged; the corpus waits beyond
OUTCOMES = {"done": 0, "expired": 2, "refused": 3, "interrupted": 4, "unsupported": 5}


class Sensor:
    """Everything but the session: identity, the corpus, the logs' writers, the commands."""

    def __init__(self, options):
        self.options = options
        os.makedirs(options.state, mode=0o700, exist_ok=True)
        self.key, self.certificate = self.path("key.pem"), self.path("certificate.pem")
        self.who = spool.read(self.path("identity.json")) or self.enrol()
        self.id, self.boot = bytes.fromhex(self.who["sensor"]), bytes.fromhex(self.who["boot"])
        deployment = bytes.fromhex(self.who["deployment"])
        self.spool = spool.Spool(self.path("spool"), deployment, self.id)
        self.command = spool.read(self.path("command.json"))
        self.assignment = spool.read(self.path("assignment.json"))
        self.machine = Machine(self, options)
        self.session, self.trouble, self.ended = None, 0, False
        self.failed, self.next_attempt, self.lost_at = 0, 0.0, None
        told = max((log.lines for log in self.spool.lanes[1]), default=0)
        if self.command and told != mark(self.command):
            self.outcome(self.command, "interrupted")

    def path(self, name):
        return os.path.join(self.options.state, name)

    def enrol(self):
        """REG-001 to REG-004: a key, a request, and the certificate that names this sensor."""
        request = self.path("request.der")
        make = "ecparam -name prime256v1 -genkey -noout -out".split()
        if not os.path.exists(self.key):
            subprocess.run(["openssl", *make, self.key], check=True)
        make = "req -new -subj /CN=sensor -outform DER -key".split()
        subprocess.run(["openssl", *make, self.key, "-out", request], check=True)
        with open(request, "rb") as file:
            request = file.read()
        address = self.options.registration or self.options.detection
        roles = ("registration", "detection")
        server = Connection(address, "lapwing-enrol/1", self.options.ca, roles)
        asked = data(self.options.token) + data(request) + data(self.options.name)
        reply = server.call(1, asked + data("Linux") + bytes(32))
        server.close()
        sensor, deployment = reply.take(16).hex(), reply.take(16).hex()
        with open(self.certificate, "w", encoding="ascii") as file:
            file.write(wire.ssl.DER_cert_to_PEM_cert(reply.data()))
        who = {"sensor": sensor, "deployment": deployment, "boot": os.urandom(16).hex()}
        spool.replace(self.path("identity.json"), who)
        say("enrolled", sensor=sensor)
        return who

    def assign(self):
        """REG-010 to REG-014: asks only where it has no assignment, or is in trouble with it."""
        if not self.options.registration:
            return self.options.detection, None
        if self.assignment and self.trouble == 0:
            return self.assignment["address"], self.assignment["server"]
        known = self.assignment and bytes.fromhex(self.assignment["server"])
        asked = varint(self.trouble) + wire.option(known if self.trouble else None, bytes)
        plane, identity = "lapwing-sensor/1", (self.certificate, self.key)
        try:
            server = Connection(
                self.options.registration, plane, self.options.ca, ("registration",), identity
            )
            reply = server.call(2, asked)
            server.close()
        except Closed:
            if self.options.detection and not self.assignment:
                return self.options.detection, None
            raise
        server, _, address = reply.take(16).hex(), reply.data(), reply.data().decode()
        self.assignment, self.trouble = {"server": server, "address": address}, 0
        spool.replace(self.path("assignment.json"), self.assignment)
        return address, server

    def connect(self):
        waited = self.lost_at is None or time.monotonic() - self.lost_at > 5
        self.trouble = self.trouble or (1 if self.failed > 2 and waited else 0)
        try:
            address, server = self.assign()
            identity = (self.certificate, self.key)
            plane, roles = "lapwing-sensor/1", ("detection",)
            connection = Connection(address, plane, self.options.ca, roles, identity, server)
            self.session = Session(self, connection)
        except Closed as error:
            self.lost(error)

    def lost(self, error):
        """HEL-036, REG-011: how long to wait, and whether to ask for another server."""
        now = time.monotonic()
        if self.session:
            self.session.connection.close()
            self.machine.begin_segment()
            self.failed, self.lost_at = (0 if self.session.established else self.failed), now
        self.session = None
        window = min(300, 2 * 2 ** min(self.failed, 8))
        self.failed += 1
        self.next_attempt = now + error.retry_after + random.uniform(0, window)
        self.trouble = self.trouble or (2 if error.refused else 0)
        say("lost", why=str(error), wait=round(self.next_attempt - now, 2))

    def run(self):
        while True:
            now = time.monotonic()
            waiting = sum(log.made - log.acked for log in self.spool.lanes[0])
            self.machine.produce(now, waiting * chunks.BODY_BYTES < BACKLOG_BYTES)
            if not self.session and now >= self.next_attempt:
                self.connect()
            try:
                if self.session:
                    self.session.step(0.02)
                else:
                    time.sleep(0.02)
            except Closed as error:
                self.lost(error)
            idle = self.machine.at_end and all(
                log.acked == log.made for lane in self.spool.lanes for log in lane
            )
            if self.ended or (idle and not self.options.stay):
                return self.stop(idle)

    def stop(self, idle):
        self.machine.close_chunk()
        self.spool.mark_clean()
        if self.session:
            self.session.connection.close()
        rows = len(self.machine.table.rows)
        say("stopped", lines=self.machine.lines, rows=rows, delivered=idle)
        return 0

    def urgent(self, kind, row, told=None):
        """One urgent fact: a chunk of its own, self-contained; with it, which command has ended."""
        log = self.spool.lanes[1][-1]
        body = chunks.Body(self.machine.time)
        body.preamble(self.boot, self.machine.wall_ms(body.base))
        body.op(chunks.EVENT, kind, body.at(body.base), body.fields(kind, row))
        body.count = 1
        flags = chunks.URGENT | chunks.SELF_CONTAINED
        log.append(chunks.chunk(flags, log.next_seq, log.next_index, 0, 0, body), 1, 0, told or log.lines)

    def finding(self, code, detail, lost=0):
        self.urgent(chunks.FINDING, {3: code, 4: b"spool", 5: detail.encode(), 6: lost})

    def outcome(self, command, outcome):
        detail = f"action {command['action']}".encode()
        row = {3: command["issuer"], 4: command["seq"], 5: OUTCOMES[outcome], 6: detail}
        self.urgent(chunks.OUTCOME, row, None if outcome == "refused" else mark(command))

    def handle_command(self, command):
        """CMD-002: its number is durable before anything is done; so it runs at most once."""
        number, last = (command["issuer"], command["seq"]), self.command
        if last and number <= (last["issuer"], last["seq"]):
            return self.outcome(command, "refused")
        known, in_time = command["action"] in (0, 1), command["expires_after_ms"] > 0
        collecting = command["action"] == 0 if known and in_time else self.machine.collecting
        self.command = command | {"collecting": collecting}
        spool.replace(self.path("command.json"), self.command)
        self.machine.collecting = collecting
        done = "done" if known else "unsupported"
        return self.outcome(command, done if in_time else "expired")


def mark(command):
    return (command["issuer"] & 0xFFFFFFFF) << 32 | command["seq"] & 0xFFFFFFFF


def say(what, **fields):
    """One line of JSON for whoever started this."""
    print(json.dumps({"what": what} | fields), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registration", help="address of a Registration server")
    parser.add_argument("--detection", help="address of a Detection server")
    parser.add_argument("--ca", required=True, help="the organisation's CA, PEM")
    parser.add_argument("--token", default="", help="enrolment token; needed at the first start")
    parser.add_argument("--state", required=True, help="folder of identity and spool")
    parser.add_argument("--corpus", required=True, help="JSON lines, each with seq, ts and type")
    parser.add_argument("--name", default="second", help="name of the machine")
    parser.add_argument("--rate", type=float, default=0, help="facts a second; 0 = all at once")
    parser.add_argument("--stay", action="store_true", help="go on when all is delivered")
    options = parser.parse_args()
    if not (options.registration or options.detection):
        parser.error("name --registration or --detection")
    try:
        sensor = Sensor(options)
    except (Closed, OSError, subprocess.CalledProcessError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: setattr(sensor, "ended", True))
    return sensor.run()


if __name__ == "__main__":
    sys.exit(main())
