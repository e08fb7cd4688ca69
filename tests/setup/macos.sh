#!/usr/bin/env bash
# Gets what building for macOS from Debian needs, into target/macos: Debian's Rust with the
# sources of its standard library, zig as the linker (from PyPI), and stubs of Apple's
# libraries, made from the lists of symbols in tests/macos/symbols. No SDK of Apple's is
# used. Only what is missing is fetched; a second run does nothing but write the stubs.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
symbols=$repo/tests/macos/symbols
mkdir -p "$repo/target/macos"
# By the name that stays when the folder is a link to a cache.
tools=$(cd -P "$repo/target/macos" && pwd)
zig_version=0.17.1
# The oldest macOS that the program is to start on.
macos=13.0
export DEBIAN_FRONTEND=noninteractive

say() { echo "macos setup: $*"; }

# --- packages ---------------------------------------------------------------------

# Not rustup's compiler: building std needs sources of exactly the compiler's version.
declare -A has=(
    [rustc-web]=/usr/bin/rustc
    [cargo-web]=/usr/bin/cargo
    [rust-web-clippy]=/usr/bin/clippy-driver
    [rust-web-src]=/usr/lib/rustlib/src/rust/library/Cargo.lock
    [llvm-22]=/usr/bin/llvm-lipo-22
    [python3-venv]=/usr/share/doc/python3-venv
)
missing=()
for package in "${!has[@]}"; do
    [ -e "${has[$package]}" ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt() {
        bash "$repo/tests/setup/as-root.sh" \
            apt-get -qq -y -o DPkg::Lock::Timeout=300 "$@" </dev/null
    }
    apt update
    apt install --no-install-recommends "${missing[@]}" >/dev/null
fi

# --- zig --------------------------------------------------------------------------

venv=$tools/venv
if ! "$venv/bin/python3" -m ziglang version 2>/dev/null | grep -qxF "$zig_version"; then
    say "installing zig $zig_version into target/macos/venv"
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "ziglang==$zig_version"
fi

# --- stubs ------------------------------------------------------------------------

# A stub is the list of what a library exports. The linker refuses a name that is in none,
# so that a typing error in an extern block, or a function that macOS does not have, fails
# the build.
stub() {
    local list=$1 target=$2
    {
        echo '--- !tapi-tbd'
        echo 'tbd-version: 4'
        echo 'targets: [ x86_64-macos, arm64-macos ]'
        sed -n "s/^# install-name: \(.*\)/install-name: '\1'/p" "$list"
        echo 'exports:'
        echo '  - targets: [ x86_64-macos, arm64-macos ]'
        echo "    symbols: [ $(grep -v '^#' "$list" | sed 's/ .*//' | paste -sd, | sed 's/,/, /g') ]"
        echo '...'
    } >"$target.new"
    # The linker's line and its inputs decide whether cargo links again: keep the old file
    # where it says the same.
    cmp -s "$target.new" "$target" || cp "$target.new" "$target"
    rm "$target.new"
}
sdk=$tools/sdk
mkdir -p "$sdk/lib"
for list in "$symbols"/*.framework; do
    name=$(basename "$list" .framework)
    mkdir -p "$sdk/Frameworks/$name.framework"
    stub "$list" "$sdk/Frameworks/$name.framework/$name.tbd"
done
for list in "$symbols"/lib*; do
    # Zig has that one; the list is for tests/macos/verify.py.
    [ "$(basename "$list")" != libSystem ] || continue
    stub "$list" "$sdk/lib/$(basename "$list").tbd"
done

# --- the linker -------------------------------------------------------------------

# What rustc calls as its linker: the architecture and the oldest macOS go into zig's name
# of the target, and the flags that say them to Apple's compiler go away.
cat >"$tools/zcc.new" <<END
#!/usr/bin/env bash
target= args=()
while [ \$# -gt 0 ]; do
    case "\$1" in
    -arch) case "\$2" in arm64) target=aarch64 ;; *) target=\$2 ;; esac; shift ;;
    -mmacosx-version-min=* | --target=*) ;;
    *) args+=("\$1") ;;
    esac
    shift
done
export ZIG_GLOBAL_CACHE_DIR=$tools/zig ZIG_LOCAL_CACHE_DIR=$tools/zig
exec $venv/bin/python3 -m ziglang cc -target \$target-macos.$macos \\
    -F$sdk/Frameworks -L$sdk/lib "\${args[@]}"
END
chmod +x "$tools/zcc.new"
cmp -s "$tools/zcc.new" "$tools/zcc" || cp "$tools/zcc.new" "$tools/zcc"
rm "$tools/zcc.new"

# rustc strips with a tool of its own distribution's, which is LLVM's under another name. It
# signs anew what it has changed.
mkdir -p "$tools/bin"
ln -sf /usr/bin/llvm-objcopy-22 "$tools/bin/rust-objcopy"
