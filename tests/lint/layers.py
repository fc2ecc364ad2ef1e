#!/usr/bin/python3
"""The staircase: checks every include of src/ against the tables in rules.py.

    layers.py [ROOT]        prints file:line: sentence for each wrong include, exit status 1 if there is one
"""

import pathlib
import re
import sys

import rules

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def complaint(folder, path, quote, name, source):
    """Why the file `path` in `folder` may not include `name`, or None."""
    owners = rules.LIBRARY_OWNERS.get(name)
    if owners and folder not in owners:
        return f"<{name}> belongs to {', '.join(sorted(owners))}; use their headers"
    if name in rules.SOCKET_HEADERS and folder in rules.NO_SOCKETS:
        return f"{folder}/ does no I/O, so it has no use for <{name}>"
    if quote == "<" or owners:
        return None
    target, slash, file = name.partition("/")
    if not slash:
        return f'write "{folder}/{name}": includes of ours name their folder'
    if not (source / name).is_file():
        return f"there is no src/{name}"
    if target != folder and target not in rules.MAY_INCLUDE[folder]:
        return f"{folder}/ may not know {target}/ (docs/ARCHITECTURE.md, the staircase)"
    if target != folder and file.endswith("_impl.h"):
        return f"{file} is private to {target}/"
    if path.suffix == ".h" and name == str(path.relative_to(source)):
        return "a header includes itself"
    return None


def check(root):
    source = root / "src"
    found = []
    for path in sorted(source.rglob("*.[ch]")):
        folder = path.relative_to(source).parts[0]
        if folder not in rules.MAY_INCLUDE:
            found.append(f"{path.relative_to(root)}:1: src/{folder} is no folder of the staircase (tests/lint/rules.py)")
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            include = INCLUDE.match(line)
            why = include and complaint(folder, path, include[1], include[2], source)
            if why:
                found.append(f"{path.relative_to(root)}:{number}: {why}")
    return found


if __name__ == "__main__":
    top = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    wrong = check(top)
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)
