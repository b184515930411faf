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
import threading
import time

import chunks
import generate
import spool
import wire
from corpus import Machine
from session import Session
from wire import Closed, Connection, data, varint

BACKLOG_CHUNKS = 1024  # that nobody acknowledged; the corpus waits beyond
DONE, EXPIRED, REFUSED, INTERRUPTED, UNSUPPORTED = 0, 2, 3, 4, 5  # Outcome
FENCED, REGISTRATION_PAUSE_S, TROUBLE_S = 10, 30, 5


class Sensor:
    """Everything but the session: identity, assignment, commands, and when to connect."""

    def __init__(self, options):
        self.options = options
        os.makedirs(options.state, mode=0o700, exist_ok=True)
        self.key, self.certificate = self.path("key.pem"), self.path("certificate.pem")
        who = spool.read(self.path("identity.json")) or self.enrol()
        self.boot, sensor = bytes.fromhex(who["boot"]), bytes.fromhex(who["sensor"])
        self.spool = spool.Spool(self.path("spool"), bytes.fromhex(who["deployment"]), sensor)
        self.command = spool.read(self.path("command.json"))
        self.assignment = spool.read(self.path("assignment.json"))
        self.machine = Machine(self, options)
        self.session, self.trouble, self.ended = None, 0, False
        self.failed, self.fenced, self.next_attempt, self.lost_at = 0, 0, 0.0, -TROUBLE_S
        told = max(log.lines for log in self.spool.lanes[1])
        if self.command and told != mark(self.command):
            self.outcome(self.command, INTERRUPTED)

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
        return who

    def assign(self):
        """REG-010 to REG-014: asks only where it has no assignment, or is in trouble with it."""
        known, registration = self.assignment, self.options.registration
        if registration and (self.trouble or not known):
            asked = varint(self.trouble)
            asked += wire.option(known and bytes.fromhex(known["server"]), bytes)
            try:
                server = self.dial(registration, ("registration",), None)
                reply = server.call(2, asked)
                server.close()
                known = {"server": reply.take(16).hex()}
                known["address"] = (reply.data(), reply.data())[1].decode()
                self.assignment, self.trouble = known, 0
                spool.replace(self.path("assignment.json"), known)
            except Closed as error:
                error.retry_after = max(error.retry_after, REGISTRATION_PAUSE_S)
                if error.refused or not (known or self.options.detection):
                    raise
        return known or {"address": self.options.detection, "server": None}

    def dial(self, address, roles, server):
        identity = (self.certificate, self.key)
        return Connection(address, "lapwing-sensor/1", self.options.ca, roles, identity, server)

    def connect(self):
        waited = time.monotonic() - self.lost_at > TROUBLE_S
        self.trouble = self.trouble or int(self.failed > 2 and waited)
        try:
            to = self.assign()
            self.session = Session(self, self.dial(to["address"], ("detection",), to["server"]))
        except Closed as error:
            self.lost(error)

    def lost(self, error):
        """HEL-036, HEL-037, REG-011: how long to wait, and whether to ask for another server."""
        now, least = time.monotonic(), 0
        if self.session:
            self.session.connection.close()
            self.machine.begin_segment()
            self.failed, self.lost_at = (0 if self.session.greeted else self.failed), now
        self.session, self.failed = None, self.failed + 1
        if error.code == FENCED:
            self.fenced += 1
            least = min(150, 2**self.fenced)
        elif error.refused:
            self.trouble = self.trouble or 2
        window = min(300, 2 ** min(9, max(self.failed, self.fenced)))
        wait = max(error.retry_after, least) + random.uniform(0, window)
        self.next_attempt = now + wait
        say("lost", why=str(error), wait=round(wait, 2))

    def run(self):
        while True:
            now = time.monotonic()
            waiting = sum(log.made - log.acked for log in self.spool.lanes[0])
            self.machine.produce(now, waiting < BACKLOG_CHUNKS)
            if not self.session and now >= self.next_attempt:
                self.connect()
            try:
                if self.session:
                    self.session.step(0.02)
                else:
                    time.sleep(0.02)
            except Closed as error:
                self.lost(error)
            logs = [log for lane in self.spool.lanes for log in lane]
            idle = self.machine.at_end and all(log.acked == log.made for log in logs)
            if self.ended or (idle and not self.options.stay):
                return self.stop(idle)

    def stop(self, idle):
        self.machine.close_chunk()
        self.spool.mark_clean()
        if self.session:
            self.session.connection.close()
        machine = self.machine
        counts = {"lines": machine.lines, "rows": len(machine.table.rows)}
        say("stopped", delivered=idle, resyncs=machine.resyncs, **counts)
        return 0

    def urgent(self, kind, row, told=None):
        """One urgent fact: a chunk of its own, self-contained; with it, which command has ended."""
        log, body = self.spool.lanes[1][-1], chunks.Body(self.machine.time)
        body.preamble(self.boot, self.machine.wall_ms())
        body.op(chunks.EVENT, kind, body.at(body.base), body.fields(kind, row))
        body.count, flags = 1, chunks.URGENT | chunks.SELF_CONTAINED
        chunk = chunks.chunk(flags, log.next_seq, log.next_index, 0, 0, body)
        log.append(chunk, 1, 0, told or log.lines)

    def finding(self, code, detail, lost):
        self.urgent(chunks.FINDING, {3: code, 4: b"spool", 5: detail.encode(), 6: lost})

    def outcome(self, command, outcome):
        row = {3: command["issuer"], 4: command["seq"], 5: outcome, 6: b"", 7: b""}
        self.urgent(chunks.OUTCOME, row, None if outcome == REFUSED else mark(command))

    def handle_command(self, command):
        """CMD-002: its number is durable before anything is done; so it runs at most once."""
        number, last = (command["issuer"], command["seq"]), self.command
        if last and number <= (last["issuer"], last["seq"]):
            return self.outcome(command, REFUSED)
        known, in_time = command["action"] in (0, 1), command["expires_after_ms"] > 0
        collecting = command["action"] == 0 if known and in_time else self.machine.collecting
        self.command = command | {"collecting": collecting}
        spool.replace(self.path("command.json"), self.command)
        self.machine.collecting = collecting
        return self.outcome(command, (DONE if known else UNSUPPORTED) if in_time else EXPIRED)


def mark(command):
    """A command's number in what an urgent chunk is spooled with."""
    return (command["issuer"] & 0xFFFFFFFF) << 32 | command["seq"] & 0xFFFFFFFF


def say(what, **fields):
    """One line of JSON for whoever started this."""
    print(json.dumps({"what": what} | fields), flush=True)


OPTIONS = {
    "registration": "address of a Registration server",
    "detection": "address of a Detection server; where there is no Registration, it enrols there too",
    "ca": "the organisation's CA, PEM",
    "token": "enrolment token; needed at the first start",
    "state": "folder of identity and spool",
    "corpus": "JSON lines, each with seq, ts and type; without it a small one is made",
    "name": "name of the machine",
    "rate": "facts a second; 0 = as fast as it goes",
    "stay": "yes: go on when all is delivered",
    "stdin": "yes: facts only as lines `event N` on the standard input ask for them; `stop` ends",
}


def read_options():
    """The command line; what is not in it is taken from the environment: LAPWING_CA and so on."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, meaning in OPTIONS.items():
        known = os.environ.get("LAPWING_" + name.upper())
        parser.add_argument("--" + name, help=meaning, default=known)
    options = parser.parse_args()
    if not (options.ca and options.state and (options.registration or options.detection)):
        parser.error("name --ca, --state, and --registration or --detection")
    options.rate, options.name = float(options.rate or 0), options.name or "second"
    options.token = options.token or ""
    if not options.corpus:
        options.corpus = os.path.join(options.state, "corpus.jsonl")
        if not os.path.exists(options.corpus):
            os.makedirs(options.state, mode=0o700, exist_ok=True)
            generate.write(5000 if options.stdin else 1000, options.corpus)
    return options


def obey(sensor):
    for line in sys.stdin:
        what, _, count = line.partition(" ")
        sensor.ended |= what.strip() == "stop"
        sensor.machine.wanted.extend([int(count)] if what == "event" else [])


def main():
    options = read_options()
    try:
        sensor = Sensor(options)
    except (Closed, OSError, subprocess.CalledProcessError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    if options.stdin:
        threading.Thread(target=obey, args=[sensor], daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: setattr(sensor, "ended", True))
    return sensor.run()


if __name__ == "__main__":
    sys.exit(main())
