#!/usr/bin/env python3
"""A stand-in for a MatrixOne server: enough to be started, asked, stopped and killed.

fake-mo-service.py MODE -launch FILE

It reads its toml files as a server does, refuses ids that are not framed, and answers the few statements of a restore drill.
MODE: good · panics (at the start after a checkpoint) · forgets (what was written is gone after a restart) · mute (never listens)
· lies (an answer differs after a restart) · dies (at the first question after its start).
"""
import json, os, re, signal, socket, struct, sys, threading, time

MODE, LAUNCH = sys.argv[1], sys.argv[3]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def key(text, name, default=None):
    found = re.search(r'^%s = "?([^"\n]*)"?$' % name, text, re.M)
    return found.group(1) if found else default


def service(name):
    path = next(line for line in re.findall(r'"([^"]+)"', open(LAUNCH).read()) if line.endswith(name + ".toml"))
    return open(path).read()


cn, log = service("cn"), service("log")
local = re.search(r'name = "LOCAL"\nbackend = "([^"]+)"\ndata-dir = "([^"]+)"', log)
backend, place = local.groups() if local else ("DISK", "./mo-data/local")
ids = open(os.path.join(place, "hk_data"), "rb").read()
if backend == "DISK" and struct.unpack("<I", ids[:4])[0] != crc32c(ids[4:]):
    sys.exit("panic: internal error: checksum not match")

STATE = "state.json"
state = json.load(open(STATE)) if os.path.exists(STATE) else {"starts": 0, "rows": 0, "checkpoints": 0}
state["starts"] += 1
if MODE == "panics" and state["checkpoints"]:
    sys.exit("panic: logic error, current lsn 221, incoming lsn 29")
if MODE == "forgets" and state["starts"] > 1:
    state["rows"] = 0


def save():
    with open(STATE + ".new", "w") as out:
        json.dump(state, out)
    os.rename(STATE + ".new", STATE)


save()


def packet(sequence, body):
    return struct.pack("<I", len(body))[:3] + bytes([sequence]) + body


def text(value):
    if value is None:
        return b"\xfb"
    data = str(value).encode()
    return (bytes([len(data)]) if len(data) < 251 else b"\xfc" + struct.pack("<H", len(data))) + data


OK = b"\x00\x00\x00\x02\x00\x00\x00"
EOF = b"\xfe\x00\x00\x02\x00"


def rows(sequence, names, values):
    out = packet(sequence, bytes([len(names)]))
    for name in names:
        sequence += 1
        column = text("def") + text("") + text("") + text("") + text(name) + text("")
        out += packet(sequence, column + b"\x0c\x2d\x00\x00\x01\x00\x00\xfd\x00\x00\x00\x00\x00")
    sequence += 1
    out += packet(sequence, EOF)
    for row in values:
        sequence += 1
        out += packet(sequence, b"".join(text(value) for value in row))
    return out + packet(sequence + 1, EOF)


def answer(sql):
    if sql == "select version()":
        return rows(1, ["version()"], [["8.0.30-MatrixOne-v4.2.0"]])
    if MODE == "dies" and "mo_tables" not in sql:
        print("panic: out of luck", flush=True)
        os._exit(2)
    if sql == "select count(*) from mo_catalog.mo_tables":
        return rows(1, ["count(*)"], [[3]])
    if sql.startswith("select rel_id from mo_catalog.mo_tables where"):
        return rows(1, ["rel_id"], [[300001]])
    if sql.startswith("select rel_id from mo_catalog.mo_tables"):
        return rows(1, ["rel_id"], [[1], [2], [3]])
    if sql.startswith("insert into everpack_drill.t"):
        state["rows"] += sql.count("('row ") + sql.count(",'row ")
        save()
        return packet(1, OK)
    if sql == "select count(*) from everpack_drill.t":
        return rows(1, ["count(*)"], [[state["rows"]]])
    if sql.startswith("select mo_ctl('dn','checkpoint'"):
        state["checkpoints"] += 1
        save()
        return rows(1, ["mo_ctl"], [['{"method": "Checkpoint", "result": [{"returnStr": "OK"}]}']])
    if sql.startswith("show columns from `shop`.`orders`"):
        return rows(1, ["Field", "Type"], [["id", "INT(32)"], ["body", "BLOB(0)"]])
    if sql.startswith("select count(*),sum(crc32(concat_ws('|',ifnull(cast(`id` as char),'~'),ifnull(hex(`body`),'~'))))"):
        return rows(1, ["a", "b", "c", "d"], [[7, 70, 1, 20]])
    if sql == "select count(*) from shop.orders":
        return rows(1, ["count(*)"], [[7 if MODE != "lies" or state["starts"] == 1 else 6]])
    if sql.startswith(("create ", "drop ")):
        return packet(1, OK)
    message = ("You have an error in your SQL syntax: " + sql).encode()
    return packet(1, b"\xff\x28\x04#42000" + message)


def receive(connection, length):
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_packet(connection):
    head = receive(connection, 4)
    return receive(connection, head[0] | head[1] << 8 | head[2] << 16)


def serve(connection):
    try:
        salt = b"12345678", b"901234567890"
        # PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, CONNECT_WITH_DB, MULTI_RESULTS, PLUGIN_AUTH, no DEPRECATE_EOF.
        low, high = 0x0001 | 0x0002 | 0x0008 | 0x0200 | 0x2000 | 0x8000, 0x0002 | 0x0008
        greeting = b"\x0a8.0.30-MatrixOne-v4.2.0\x00" + struct.pack("<I", 7) + salt[0] + b"\x00"
        greeting += struct.pack("<HBHH", low, 45, 2, high) + bytes([21]) + b"\x00" * 10 + salt[1] + b"\x00"
        connection.sendall(packet(0, greeting + b"mysql_native_password\x00"))
        read_packet(connection)
        connection.sendall(packet(2, OK))
        while True:
            body = read_packet(connection)
            if body[:1] == b"\x01":
                return
            connection.sendall(answer(body[1:].decode()) if body[:1] == b"\x03" else packet(1, OK))
    except (EOFError, OSError):
        pass
    finally:
        connection.close()


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if MODE == "mute":
    time.sleep(600)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((key(cn, "host"), int(re.search(r"^\[cn\.frontend\]\nhost = .*\nport = (\d+)", cn, re.M).group(1))))
listener.listen(16)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
