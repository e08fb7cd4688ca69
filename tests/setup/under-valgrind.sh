#!/usr/bin/env bash
# Runs a test binary under valgrind: `under-valgrind.sh BINARY ARGUMENT...`, as cargo's runner.
# Every error fails, and so does memory that nothing points to at the end.
set -euo pipefail

# One test at a time: valgrind runs one thread at a time anyway, and some of the tests watch
# the clock.
exec valgrind --quiet --error-exitcode=1 --leak-check=full \
    --show-leak-kinds=definite --errors-for-leak-kinds=definite \
    --track-fds=no "$@" --test-threads=1
