"""Connections and messages, as docs/protocol.md has them: planes, frames, values, calls.

It knows nothing of logs and chunks; a chunk is bytes here. It raises Closed for whatever ends a
connection, and never believes a length that the peer wrote before it has checked it.
"""

import select
import socket
import ssl
import struct

HELLO, HELLO_ACK, CHUNK, ACK, NACK, JUMP, RESYNC, CHAIN_MARK = range(1, 9)
PING, PONG, DRAINING, REFUSED, COMMAND, CALL, REPLY = range(9, 16)
FRAME_BYTES_MAX = 4096  # what this sensor takes in one frame; its Hello says so
U64 = 2**64 - 1


class Closed(Exception):
    """The connection is over: whose fault it was, and how long the peer wants to be left alone."""

    def __init__(self, why, retry_after_ms=0, code=0):
        super().__init__(why)
        self.retry_after, self.code, self.refused = retry_after_ms / 1000, code, code > 0


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def zigzag(number):
    """The varint of a difference, which wraps at 64 bits."""
    number &= U64
    return varint(((number << 1) & U64) ^ (U64 if number >> 63 else 0))


def data(value):
    value = value.encode() if isinstance(value, str) else value
    return varint(len(value)) + value


def option(value, write=varint):
    return b"\0" if value is None else b"\1" + write(value)


class Reader:
    """Reads one message; what is short or too long is a fault of the peer."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, count):
        self.at += count
        if self.at > len(self.body):
            raise Closed("malformed: a message is too short")
        return self.body[self.at - count : self.at]

    def varint(self, bits=64):
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 and number < 1 << bits:
                return number
            if byte < 0x80 or shift > 63:
                raise Closed("malformed: a number is too large")

    def data(self):
        return self.take(self.varint(32))

    def option(self, read):
        return read() if self.varint(1) else None

    def end(self, value):
        if self.at != len(self.body):
            raise Closed("malformed: bytes behind a message")
        return value


def read_hello_ack(body):
    r = Reader(body)
    ack = {"version": r.varint(16), "capabilities": [r.varint(16) for _ in range(r.varint(8))]}
    ack.update(server=r.take(16), name=r.data(), epoch=r.varint(), server_ms=r.varint())
    ack.update(receive_bytes_max=r.varint(32), rows_max=r.varint(32))
    ack["logs"] = [
        {"lane": r.varint(1), "log": r.take(16), "verdict": r.varint(8), "next_seq": r.varint(),
         "next_index": r.varint(), "chain": r.take(32), "seq": r.varint(), "bytes": r.varint()}
        for _ in range(r.varint(8))]  # fmt: skip
    return r.end(ack)


def read_numbers(*names_and_bits):
    """A reader of a message that is numbers alone."""

    def read(body):
        r = Reader(body)
        return r.end({name: r.varint(bits) for name, bits in names_and_bits})

    return read


def read_refused(body):
    r = Reader(body)
    return r.end({"code": r.varint(16), "retry_after_ms": r.varint(32), "detail": r.data()})


def read_call(body):
    r = Reader(body)
    return r.end({"call": r.varint(32), "method": r.varint(16), "body": r.data()})


def read_reply(body):
    r = Reader(body)
    fields = {"call": r.varint(32), "more": r.varint(1), "code": r.varint(16), "body": r.data()}
    return r.end(fields)


READERS = {
    HELLO_ACK: read_hello_ack,
    ACK: read_numbers(("lane", 1), ("stored", 64), ("safe", 64), ("seq", 64), ("bytes", 64)),
    NACK: read_numbers(("lane", 1), ("next_seq", 64), ("episode", 32), ("reason", 8), ("wait", 32)),
    RESYNC: read_numbers(("lane", 1), ("at_seq", 64), ("reason", 8)),
    PING: read_numbers(("nonce", 64)),
    PONG: read_numbers(("nonce", 64)),
    DRAINING: read_numbers(("retry_after_ms", 32)),
    REFUSED: read_refused,
    COMMAND: read_numbers(("issuer", 64), ("seq", 64), ("expires_after_ms", 64), ("action", 8)),
    CALL: read_call,
    REPLY: read_reply,
}


class Connection:
    """A TLS connection that carries frames; `identity` is the certificate's, checked."""

    def __init__(self, address, plane, authority, roles, identity=None, server=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # PLN-005: who it is stands in the URI, not in a name
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        context.load_verify_locations(authority)
        context.set_alpn_protocols([plane])
        if identity:
            context.load_cert_chain(*identity)
        host, _, port = address.rpartition(":")
        try:
            plain = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.tls = context.wrap_socket(plain)
        except (OSError, ValueError) as error:
            raise Closed(f"{address}: {error}") from error
        self.received, self.waiting = bytearray(), bytearray()
        names = self.tls.getpeercert().get("subjectAltName", ())
        uris = [name for sort, name in names if sort == "URI"]
        parts = uris[0].removeprefix("lapwing://").split("/") if len(uris) == 1 else []
        known = len(parts) == 3 and parts[1] in roles and server in (None, parts[2])
        if not known or self.tls.selected_alpn_protocol() != plane:
            self.close()
            raise Closed(f"{address} is not the server that was expected, but {uris}")
        self.tls.setblocking(False)

    def close(self):
        self.tls.close()

    def send(self, kind, body):
        self.waiting += struct.pack("<HH", len(body), kind) + body

    def poll(self, seconds):
        """Writes what can be written, and gives the frames that came within that time."""
        if not self.tls.pending():
            select.select([self.tls], [self.tls] if self.waiting else [], [], max(0, seconds))
        ended = False
        try:
            while self.waiting:
                del self.waiting[: self.tls.send(self.waiting[:16384])]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            ended = True  # what it said before it closed is still worth reading
        try:
            while len(self.received) < 16 * FRAME_BYTES_MAX:
                part = self.tls.recv(FRAME_BYTES_MAX)
                if not part:
                    ended = True
                    break
                self.received += part
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            ended = True
        frames = self.frames()
        if ended and not frames:
            raise Closed("the server closed the connection")
        return frames

    def frames(self):
        out = []
        while len(self.received) >= 4:
            length, kind = struct.unpack_from("<HH", self.received)
            if length + 4 > FRAME_BYTES_MAX or kind & 0x7000:
                raise Closed("a frame that is too large, or has flags without meaning")
            if len(self.received) < length + 4:
                break
            body = bytes(self.received[4 : 4 + length])
            del self.received[: 4 + length]
            if kind & 0xFFF in READERS:
                out.append((kind & 0xFFF, READERS[kind & 0xFFF](body)))
            elif not kind & 0x8000:
                raise Closed(f"an unknown kind of frame, {kind}")
        return out

    def call(self, method, request):
        """One question, and the whole answer to it."""
        self.send(CALL, varint(1) + varint(method) + data(request))
        reply = b""
        for _ in range(30):
            for kind, said in self.poll(1):
                if kind == PING:
                    self.send(PONG, varint(said["nonce"]))
                elif kind == REFUSED:
                    raise refusal(said)
                elif kind == REPLY and said["call"] == 1:
                    reply += said["body"]
                    if said["code"]:
                        raise Closed(f"code {said['code']}: {reply!r}", code=said["code"])
                    if not said["more"]:
                        return Reader(reply)
        raise Closed("no answer to a call")


def refusal(said):
    text = f"refused with code {said['code']}: {said['detail']!r}"
    return Closed(text, said["retry_after_ms"], said["code"])
