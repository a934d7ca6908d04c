#!/usr/bin/env bash
# Builds CVaquita.xcframework beside Package.swift: for iOS, its simulator and macOS. Needs a Mac with Xcode and Rust.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=targets/apple
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
built=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

mkdir "$folder/include"
cp targets/capi/include/vaquita.h "$folder/include/"
cat > "$folder/include/module.modulemap" <<'MAP'
module CVaquita {
    header "vaquita.h"
    export *
}
MAP

arguments=()
for target in aarch64-apple-ios aarch64-apple-ios-sim aarch64-apple-darwin; do
    rustup target add $target
    cargo rustc --profile release-lib --target $target -p vaquita-capi --lib --crate-type staticlib
    arguments+=(-library "$built/$target/release-lib/libvaquita.a" -headers "$folder/include")
done
rm -rf $here/CVaquita.xcframework
xcodebuild -create-xcframework "${arguments[@]}" -output $here/CVaquita.xcframework
