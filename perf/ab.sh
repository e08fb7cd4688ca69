#!/usr/bin/env bash
# Whether this tree is faster or slower than another revision: builds both, and measures them by
# turns in the same rounds against the same bare loop. What looks worse is measured once more.
#
#     perf/ab.sh [REVISION] [SCENARIO,...]     (the merge base with origin/main, or the last commit)
#
# Exit code 1 means worse, twice.
set -euo pipefail
cd "$(dirname "$0")/.."

scenarios=${2:-outbound/64,outbound/1514,outbound/16384,inbound/64,inbound/1514,load/outbound/10k,rules/4096,drops/outbound}
rounds=${ROUNDS:-31}
base=${1:-$(git merge-base HEAD origin/main 2>/dev/null || git rev-parse HEAD)}
# On the main branch itself, what to compare with is the commit before, unless something changed.
if [ $# -eq 0 ] && [ "$base" = "$(git rev-parse HEAD)" ] && git diff --quiet HEAD; then
    base=$(git rev-parse HEAD~1)
fi

target=${CARGO_TARGET_DIR:-$PWD/target}
tree=$target/perf/tree
results=$target/perf/ab.jsonl
mkdir -p "$target/perf"
git worktree remove --force "$tree" 2>/dev/null || true
git worktree prune
git worktree add --quiet --detach "$tree" "$base"
trap 'git worktree remove --force "$tree"' EXIT

echo "building $(git describe --always "$base") and this tree"
cargo build --quiet --locked --release --bin softnet
CARGO_TARGET_DIR=$target/perf/base cargo build --quiet --locked --release --bin softnet \
    --manifest-path "$tree/Cargo.toml"

measure() {
    rm -f "$results"
    "$target/release/softnet" bench --subject auto --against "$target/perf/base/release/softnet" \
        --scenario "$1" --rounds "$rounds" --json "$results" >/dev/null || exit 2
    "$target/release/softnet" bench compare "$results"
}

echo "times the cost of $(git describe --always "$base"), $rounds rounds:"
measure "$scenarios" && exit 0
worse=$("$target/release/softnet" bench compare "$results" | awk '/WORSE/ {print $1}' | sort -u | paste -sd, || true)
echo "once more, to be sure: $worse"
measure "${worse:-$scenarios}"
