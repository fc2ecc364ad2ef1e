#!/usr/bin/python3
"""What can be seen in the text of C files without a compiler: banned functions, length, guards, stray white space.

    text.py [ROOT]          prints file:line: sentence for each finding, exit status 1 if there is one
"""

import pathlib
import re
import sys

import rules

# Comments, strings and character constants, in the one order in which they can be told apart.
LITERAL = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
# Not a member (x.system, x->system), not part of a longer name.
CALL = re.compile(r"(?<![\w.])(?<!->)(" + "|".join(rules.BANNED) + r")\s*\(")


def code_only(text):
    """The text with comments and literals blanked; line numbers stay."""
    return LITERAL.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def guard_of(path):
    """src/base/log.h -> KV_BASE_LOG_H"""
    return "KV_" + re.sub(r"\W", "_", "/".join(path.parts[1:])).upper()


def check_file(path, text):
    """path is relative to the root. Yields (line number, sentence)."""
    lines = text.splitlines()
    if len(lines) > rules.LONGEST_FILE:
        yield len(lines), f"{len(lines)} lines; {rules.LONGEST_FILE} is the most that one file may hold"
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield len(lines), "a file ends with one line feed"
    for number, line in enumerate(lines, 1):
        if line != line.rstrip():
            yield number, "white space at the end of the line"
        if "\t" in line:
            yield number, "a tab"

    code = code_only(text)
    for call in CALL.finditer(code):
        number = code.count("\n", 0, call.start()) + 1
        yield number, f"{call[1]}() is banned; use {rules.BANNED[call[1]]}"
    if path.parts[0] != "src":
        return
    if not text.startswith("/*"):
        yield 1, "a file of src/ opens with a comment that says what it is"
    if path.suffix == ".h":
        guard = guard_of(path)
        if f"#ifndef {guard}\n#define {guard}\n" not in text:
            yield 1, f"the include guard is {guard}"


def check(root):
    found = []
    for folder in ("src", "tests", "bench"):
        for path in sorted((root / folder).rglob("*.[ch]")):
            relative = path.relative_to(root)
            for number, sentence in check_file(relative, path.read_text(encoding="utf-8")):
                found.append(f"{relative}:{number}: {sentence}")
    return found


if __name__ == "__main__":
    top = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    wrong = check(top)
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)
