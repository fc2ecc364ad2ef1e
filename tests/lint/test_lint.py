"""The lints find what they are for, and leave in peace what they are not for."""

import pathlib

import layers
import links
import pytest
import text


def plant(root, files):
    for name, content in files.items():
        path = root / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    "folder, line, sentence",
    [
        ("base", '#include "io/conn.h"', "may not know io/"),
        ("http", '#include "tunnel/wire.h"', "may not know tunnel/"),
        ("edge", '#include "control/open.h"', "may not know control/"),
        ("client", '#  include "edge/edge.h"', "may not know edge/"),
        ("edge", '#include "store/store.h"', "may not know store/"),
        ("store", '#include "http/head.h"', "may not know http/"),
        ("tunnel", '#include "io/conn_impl.h"', "private to io/"),
        ("io", '#include "conn.h"', 'write "io/conn.h"'),
        ("io", '#include "io/nowhere.h"', "there is no src/io/nowhere.h"),
        ("http", "#include <sys/socket.h>", "does no I/O"),
        ("control", "#include <sqlite3.h>", "belongs to store"),
        ("edge", '#include "tunnel.pb-c.h"', "belongs to tunnel"),
        ("attic", "", "no folder of the staircase"),
    ],
)
def test_wrong_includes_are_found(tmp_path, folder, line, sentence):
    others = ("io/conn.h", "io/conn_impl.h", "tunnel/wire.h", "control/open.h", "edge/edge.h", "store/store.h", "http/head.h")
    plant(tmp_path, {name: "" for name in others})
    plant(tmp_path, {f"{folder}/file.c": f"/* x */\n{line}\n"})
    (found,) = layers.check(tmp_path)
    assert sentence in found
    assert found.startswith(f"src/{folder}/file.c:{2 if line else 1}: ")


def test_right_includes_are_not(tmp_path):
    plant(tmp_path, {"base/log.h": "", "io/conn.h": '#include "base/log.h"\n', "io/conn_impl.h": "", "store/store.h": ""})
    plant(tmp_path, {"io/conn.c": '#include "io/conn.h"\n#include "io/conn_impl.h"\n#include <sys/socket.h>\n'})
    plant(tmp_path, {"control/open.c": '#include "store/store.h"\n#include "io/conn.h"\n#include <stdio.h>\n'})
    plant(tmp_path, {"tunnel/wire.c": '#include "tunnel.pb-c.h"\n'})
    assert layers.check(tmp_path) == []


def findings(content, name="src/io/file.c"):
    return [sentence for _, sentence in text.check_file(pathlib.PurePath(name), content)]


@pytest.mark.parametrize("call", ["strcpy(a, b)", "sscanf (s, f)", "x = atoi(s)", "system(s)", "(void)alloca(n)"])
def test_banned_calls_are_found(call):
    (found,) = findings(f"/* x */\nint f(void)\n{{\n    {call};\n}}\n")
    assert "is banned" in found


@pytest.mark.parametrize("call", ["conn->system(s)", "my_atoi(s)", "table.gets(s)", "strcpy_s(a)", 'log("strcpy(a)")', "/* gets() */"])
def test_other_calls_are_not(call):
    assert findings(f"/* x */\nint f(void)\n{{\n    {call};\n}}\n") == []


def test_an_escaped_quote_does_not_hide_code():
    assert "strcat() is banned" in findings("/* x */\nchar c = '\"';\nint f = strcat(a, \"\\\"\");\n")[0]


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("int a;\n", "opens with a comment"),
        ("/* x */\nint a; \n", "white space"),
        ("/* x */\n\tint a;\n", "a tab"),
        ("/* x */\nint a;", "one line feed"),
        ("/* x */\nint a;\n\n", "one line feed"),
        ("/* x */\n" + "int a;\n" * 700, "701 lines"),
    ],
)
def test_form(content, sentence):
    (found,) = findings(content)
    assert sentence in found


def test_guards():
    assert findings("/* x */\n#ifndef KV_IO_FILE_H\n#define KV_IO_FILE_H\n#endif\n", "src/io/file.h") == []
    (found,) = findings("/* x */\n#ifndef FILE_H\n#define FILE_H\n#endif\n", "src/io/file.h")
    assert "KV_IO_FILE_H" in found


def test_links(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "A.md").write_text("# One `thing`, two\n\n## Again\n\n## Again\n\n[self](#again-1) [up](../README.md)\n")
    (tmp_path / "README.md").write_text(
        "[a](docs/A.md) [b](docs/A.md#one-thing-two) [c](https://example.com/x#y) `[d](nowhere)`\n"
        "```\n[e](nowhere)\n```\n"
        "[f](docs/B.md)\n[g](docs/A.md#third)\n"
    )
    assert links.check(tmp_path) == [
        "README.md:5: there is no docs/B.md",
        "README.md:6: docs/A.md has no heading #third",
    ]
