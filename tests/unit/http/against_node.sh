#!/bin/sh
# Runs http1_against_node.js where there is a Node to compare with; 77 tells ctest that the test was skipped.
if ! command -v node >/dev/null; then
    echo "skipped: node is not installed, so there is no second HTTP/1 parser to compare ours with"
    exit 77
fi
exec node "$(dirname "$0")/http1_against_node.js" "$@"
