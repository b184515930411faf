#!/usr/bin/env python3
"""Writes a small corpus for the second sensor: `generate.py N OUT`, N JSON lines, always the same.

The shapes are those of the corpus that lapwing-load replays; names and numbers are its own, and
every 50th line is a note, which becomes a kind that the sensor defines itself.
"""

import hashlib
import json
import sys


def lines(count):
    state, live, open_ends, pid = 1, [], [], 1000
    for seq in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        dice = state >> 33
        line = {"seq": seq, "ts": 1_800_000_000_000_000_000 + seq * 1_000_000 + dice % 1000}
        if seq % 50 == 49:
            yield line | {"type": "note", "text": "x" * (dice % 90)}
            continue
        if dice % 4 == 0 or len(live) < 3:
            pid += 1
            path = f"/opt/second/tool-{dice % 17}"
            line |= {"type": "process_start", "pid": pid, "ppid": live[-1][0] if live else 1}
            line |= {"path": path, "cmdline": f"tool --round {dice % 1009}", "uid": 0, "user": "root"}
            line |= {"sha256": hashlib.sha256(path.encode()).hexdigest(), "cwd": "/"}
            live.append((pid, path))
            yield line
            continue
        who, path = live[dice % len(live)]
        line |= {"pid": who, "path": path, "user": "root"}
        if dice % 4 == 1 and len(live) > 20:
            live.remove((who, path))
            line |= {"type": "process_end", "uid": 0, "exit_code": dice % 3 - 1, "utime_us": 10}
            yield line | {"stime_us": 20, "duration_ms": dice % 5000}
        elif dice % 4 == 2:
            ends = {"saddr": "192.0.2.1", "sport": 20000 + seq, "daddr": "2001:db8::1"}
            ends |= {"dport": 443} if dice % 3 else {"daddr": f"198.51.100.{dice % 200}", "dport": 80}
            open_ends.append((who, ends))
            yield line | ends | {"type": "tcp_connect", "proto": "tcp", "direction": "outbound"}
        elif dice % 4 == 3 and open_ends:
            line["pid"], ends = open_ends.pop(dice % len(open_ends))
            line |= {"type": "tcp_close", "bytes_sent": dice, "bytes_recv": seq, "proto": "tcp"}
            yield line | ends | {"duration_ms": 7}
        elif dice % 3:
            line |= {"type": "dns_query", "qname": f"host-{dice % 101}.example", "qtype": "A"}
            yield line | {"rcode": "NOERROR", "answers": ["198.51.100.9", "198.51.100.10"]}
        else:
            line |= {"type": "file_create", "file": f"/srv/second/{dice % 211}", "size": dice}
            yield line | {"mode": "0644", "inode": seq}


def write(count, path):
    with open(path, "w", encoding="ascii") as out:
        for line in lines(count):
            print(json.dumps(line), file=out)


if __name__ == "__main__":
    write(int(sys.argv[1]), sys.argv[2])
