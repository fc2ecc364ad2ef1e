#!/usr/bin/python3
"""Links between the pages: every relative link in a Markdown file leads to a file, every anchor to a heading.

    links.py [ROOT]         prints file:line: sentence for each that does not, exit status 1 if there is one
"""

import pathlib
import re
import sys

# [text](target), not in a code span; a title after the target is allowed.
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")


def lines_outside_code(text):
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(text):
    """As the usual web views make them: lower case, words joined by hyphens, a number behind the second of a kind."""
    seen = {}
    for _, line in lines_outside_code(text):
        heading = HEADING.match(line)
        if heading:
            plain = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            count = seen.get(plain, 0)
            seen[plain] = count + 1
            yield f"{plain}-{count}" if count else plain


def check(root):
    found = []
    for path in sorted(root.rglob("*.md")):
        relative = path.relative_to(root)
        if relative.parts[0].startswith("build"):
            continue
        for number, line in lines_outside_code(path.read_text(encoding="utf-8")):
            for link in LINK.finditer(re.sub(r"`[^`]*`", "", line)):
                target, _, anchor = link[1].partition("#")
                if re.match(r"[a-z]+:", target):
                    continue
                file = path.parent / target if target else path
                if not file.exists():
                    found.append(f"{relative}:{number}: there is no {target}")
                elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
                    found.append(f"{relative}:{number}: {target or relative} has no heading #{anchor}")
    return found


if __name__ == "__main__":
    top = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    wrong = check(top)
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)
