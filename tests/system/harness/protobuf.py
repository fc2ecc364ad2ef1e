"""
The tunnel's messages in protobuf, written by hand from the published table: an encoder and a decoder that share nothing
with the programs under test, and that can make any wrong message on purpose.

A message is a dict of its fields. encode() writes exactly the keys it is given, in order; decode() skips numbers that
its schema does not know, as deployed peers do. BASE is what deployed peers know; FULL adds the numbers from 16 on.
"""

UINT, BOOL, STRING, BYTES = "uint", "bool", "string", "bytes"

BASE = {
    "ServerFrame": {
        1: ("request_id", UINT),
        2: ("welcome", "Welcome"),
        3: ("request_head", "RequestHead"),
        4: ("data", "DataChunk"),
        5: ("cancel", "Cancel"),
        6: ("ping", "Ping"),
    },
    "ClientFrame": {
        1: ("request_id", UINT),
        2: ("hello", "Hello"),
        3: ("response_head", "ResponseHead"),
        4: ("data", "DataChunk"),
        5: ("cancel", "Cancel"),
        6: ("ping", "Ping"),
        7: ("pong", "Ping"),
        8: ("error", "Error"),
    },
    "Hello": {1: ("token", STRING), 2: ("name", STRING), 3: ("client_version", STRING), 4: ("takeover", BOOL)},
    "Welcome": {1: ("subdomain", STRING), 2: ("public_url", STRING), 3: ("max_concurrent_requests", UINT)},
    "RequestHead": {
        1: ("method", STRING),
        2: ("path", STRING),
        3: ("headers", ["Header"]),
        4: ("remote_addr", STRING),
        5: ("is_upgrade", BOOL),
    },
    "ResponseHead": {1: ("status", UINT), 2: ("headers", ["Header"]), 3: ("upgraded", BOOL)},
    "Header": {1: ("name", STRING), 2: ("value", BYTES)},
    "DataChunk": {1: ("data", BYTES), 2: ("end_stream", BOOL)},
    "Cancel": {1: ("reason", UINT)},
    "Ping": {1: ("nonce", UINT)},
    "Error": {1: ("code", UINT), 2: ("message", STRING)},
}

FULL = {name: dict(fields) for name, fields in BASE.items()}
FULL["ServerFrame"].update(
    {16: ("credit", "Credit"), 17: ("trailers", "Trailers"), 18: ("reset", "Error"), 19: ("drain", "Drain"), 20: ("pong", "Ping")}
)
FULL["ClientFrame"].update({16: ("credit", "Credit"), 17: ("trailers", "Trailers"), 18: ("reset", "Error")})
FULL["Hello"].update({16: ("features", UINT), 17: ("initial_credit", UINT), 18: ("instance_id", BYTES),
                      19: ("response_timeout_ms", UINT)})
FULL["Welcome"].update(
    {16: ("features", UINT), 17: ("initial_credit", UINT), 18: ("session_id", STRING), 19: ("server_name", STRING)}
)
FULL["RequestHead"].update({19: ("visitor_connection", UINT)})
FULL["Credit"] = {1: ("bytes", UINT)}
FULL["Trailers"] = {1: ("headers", ["Header"])}
FULL["Drain"] = {1: ("grace_ms", UINT)}

# The bits of `features`.
CREDIT, TRAILERS, HALF_CLOSE, RESET, DRAIN, CLOCKS, VISITOR = 1, 2, 4, 8, 16, 1 << 10, 1 << 11
ALL_FEATURES = CREDIT | TRAILERS | HALF_CLOSE | RESET | DRAIN | CLOCKS | VISITOR


class Malformed(ValueError):
    """Bytes that are no message."""


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def read_varint(data, at):
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("varint")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def field(number, wire_type, payload):
    """One raw field; payload is an int for wire type 0, bytes for 2 (and 1, 5: raw)."""
    out = varint(number << 3 | wire_type)
    if wire_type == 0:
        return out + varint(payload)
    if wire_type == 2:
        return out + varint(len(payload)) + payload
    return out + payload


def encode(name, message, schema=FULL):
    numbers = {member: (number, kind) for number, (member, kind) in schema[name].items()}
    out = bytearray()
    for member, value in message.items():
        number, kind = numbers[member]
        if kind in (UINT, BOOL):
            out += field(number, 0, int(value))
        elif kind == STRING:
            out += field(number, 2, value.encode() if isinstance(value, str) else value)
        elif kind == BYTES:
            out += field(number, 2, value)
        elif isinstance(kind, list):
            for one in value:
                out += field(number, 2, encode(kind[0], one, schema))
        else:
            out += field(number, 2, encode(kind, value, schema))
    return bytes(out)


def decode(name, data, schema=FULL):
    out = {}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = read_varint(data, at)
        elif wire_type == 2:
            size, at = read_varint(data, at)
            value = bytes(data[at : at + size])
            if len(value) != size:
                raise Malformed("length")
            at += size
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
            value = bytes(data[at : at + size])
            at += size
        else:
            raise Malformed(f"wire type {wire_type}")
        if number not in schema[name]:
            continue
        member, kind = schema[name][number]
        if (kind in (UINT, BOOL)) != (wire_type == 0):
            raise Malformed(f"{name}.{member} with wire type {wire_type}")
        if kind == BOOL:
            out[member] = bool(value)
        elif kind == STRING:
            out[member] = value.decode()
        elif isinstance(kind, list):
            out.setdefault(member, []).append(decode(kind[0], value, schema))
        elif kind in (UINT, BYTES):
            out[member] = value
        else:
            out[member] = decode(kind, value, schema)
    return out


def kind_of(frame):
    """The name of the one thing a decoded frame carries besides its request_id; None when it carries nothing known."""
    return next((key for key in frame if key != "request_id"), None)


def headers(pairs):
    """[("a", "b"), …] as a list of Header; values may be bytes."""
    return [{"name": n, "value": v if isinstance(v, bytes) else v.encode("latin-1")} for n, v in pairs]


def pairs(headers_list):
    """The opposite, with values as text."""
    return [(h.get("name", ""), h.get("value", b"").decode("latin-1")) for h in headers_list or []]
