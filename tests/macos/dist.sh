#!/usr/bin/env bash
# Links softnet for both kinds of Macs, signs both with the entitlement for vmnet, checks the
# result, and leaves in dist/ what is to be published: a binary for each, one for both, an archive, and a Homebrew formula for it.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
cd "$repo"
dist=$repo/dist
release=$(cd -P target/macos && pwd)/build
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
archive=softnet-$version-macos.tar.gz

mkdir -p "$dist"
for architecture in aarch64 x86_64; do
    bash tests/macos/cargo.sh build "$architecture" --release --bin softnet
    # By the name that it has once it is installed, for that goes into the signature.
    mkdir -p "$dist/$architecture"
    cp "$release/$architecture-apple-darwin/release/softnet" "$dist/$architecture/softnet"
    python3 tests/macos/sign.py docs/macos/softnet.entitlements "$dist/$architecture/softnet"
    mv "$dist/$architecture/softnet" "$dist/softnet-$architecture-apple-darwin"
    rmdir "$dist/$architecture"
done
# A universal binary is both behind a table of contents: the signatures stay as they are.
llvm-lipo-22 -create "$dist"/softnet-*-apple-darwin -output "$dist/softnet"
cp docs/macos/softnet.entitlements docs/macos/softnet.sudoers "$dist"
python3 tests/macos/verify.py "$dist"/softnet-*-apple-darwin "$dist/softnet"

tar -C "$dist" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --use-compress-program='gzip -n' \
    -cf "$dist/$archive" softnet softnet.entitlements softnet.sudoers
sum=$(sha256sum "$dist/$archive" | cut -d' ' -f1)
sed -e "s|@URL@|${SOFTNET_URL:-file:///tmp/$archive}|" -e "s|@VERSION@|$version|" \
    -e "s|@SHA256@|$sum|" docs/macos/softnet.rb >"$dist/softnet.rb"
ls -l "$dist"
