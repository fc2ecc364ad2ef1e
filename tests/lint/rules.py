"""What the lints of this folder know about the tree: which folder may include which, what is banned, how long is long.

The table of folders is the staircase of docs/ARCHITECTURE.md. CMakeLists.txt links the same way, so a wrong include
that also calls something fails to link; the lint finds the ones that only look at a struct.
"""

BASE = {"base"}
IO = BASE | {"io"}
HTTP = IO | {"http"}
GRPC = HTTP | {"grpc"}
TUNNEL = GRPC | {"tunnel"}

# folder -> folders that it may include besides itself. Siblings (edge, control, client) are absent from each other.
MAY_INCLUDE = {
    "base": set(),
    "io": BASE,
    "http": IO,
    "grpc": HTTP,
    "tunnel": GRPC,
    "store": IO,
    "edge": TUNNEL,
    "control": TUNNEL | {"store"},
    "client": TUNNEL,
    "ops": TUNNEL | {"store", "edge", "control"},
    "cmd": TUNNEL | {"store", "edge", "control", "client", "ops"},
}

# library header -> the folders that may know the library. The rest go through those folders' own headers.
LIBRARY_OWNERS = {
    "tunnel.pb-c.h": {"tunnel"},
    "sqlite3.h": {"store"},
    "libpq-fe.h": {"store"},
    "nghttp2/nghttp2.h": {"http", "grpc"},
}

# A codec takes bytes and gives bytes: nothing in these folders may reach for a socket.
NO_SOCKETS = {"base", "http", "grpc"}
SOCKET_HEADERS = {"uv.h", "sys/socket.h", "netinet/tcp.h", "netdb.h", "sys/epoll.h"}

# function -> what to use instead
BANNED = {
    "strcpy": "buffer_append_string, slice_dup or memcpy with a checked length",
    "strcat": "buffer_append_string",
    "sprintf": "snprintf or buffer_printf",
    "vsprintf": "vsnprintf",
    "gets": "fgets",
    "strtok": "slice_next_element",
    "strtok_r": "slice_next_element",
    "atoi": "slice_to_u64",
    "atol": "slice_to_u64",
    "atoll": "slice_to_u64",
    "atof": "nothing here needs it",
    "scanf": "a parser of its own",
    "fscanf": "a parser of its own",
    "sscanf": "a parser of its own",
    "vscanf": "a parser of its own",
    "vfscanf": "a parser of its own",
    "vsscanf": "a parser of its own",
    "alloca": "malloc, or an array with a constant size",
    "system": "fork and exec without a shell",
    "popen": "fork and exec without a shell",
    "mktemp": "mkstemp",
    "tmpnam": "mkstemp",
    "rand": "random_below",
    "srand": "random_below",
}

LONGEST_FILE = 700
