#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Fetches libllama and its headers, makes the model, and builds llama_session; what is there and up
# to date is kept. Everything goes to one directory, by default target/llama.
#
#   build.sh [DIRECTORY]
#
# Exits 77, with the reason as the last line on stdout, when this machine cannot do it: another
# platform, a tool that is not installed, no network. Any other failure is a real one.
#
# Needs: g++, git, npm, python3 with venv, capnp; Debian packages libcapnp-dev, libxxhash-dev.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${1:-$root/target/llama}
version=3.22.1
libraries=$out/npm/bins/linux-x64

cannot() {
    echo "$1"
    exit 77
}

# The first error in a failed command's output, or its last line, goes into the reason.
try() {
    what=$1
    shift
    "$@" >"$out/log" 2>&1 || cannot "$what failed: $(grep -i -m 1 error "$out/log" || tail -n 1 "$out/log")"
}

check_tools() {
    [ "$(uname -sm)" = "Linux x86_64" ] || cannot "the libllama package is for Linux on x86_64"
    for tool in g++ git npm python3 capnp flock; do
        command -v "$tool" >/dev/null || cannot "$tool is not installed"
    done
    for header in capnp/message.h xxhash.h; do
        echo "#include <$header>" | g++ -x c++ -std=c++17 -E - >/dev/null 2>&1 || cannot "the header $header is not installed"
    done
}

fetch_libraries() {
    [ -e "$out/npm.$version" ] && return
    rm -rf "$out/npm" "$out/include" "$out/fetch"
    mkdir -p "$out/npm" "$out/include" "$out/fetch"
    cd "$out/fetch"
    try "npm pack" npm pack --loglevel error "@node-llama-cpp/linux-x64@$version" "node-llama-cpp@$version"
    sha256sum --check --quiet "$here/checksums.txt"
    tar -xzf "node-llama-cpp-linux-x64-$version.tgz" -C "$out/npm" --strip-components 1
    tar -xzf "node-llama-cpp-$version.tgz" package/llama/gitRelease.bundle
    git -c init.defaultBranch=main clone --quiet --bare package/llama/gitRelease.bundle sources.git
    git -C sources.git archive HEAD include ggml/include | tar -x -C "$out/include"
    cd "$root"
    rm -rf "$out/fetch"
    touch "$out/npm.$version"
}

make_model() {
    [ "$out/tiny.gguf" -nt "$here/make_model.py" ] && return
    if [ ! "$out/python/installed" -nt "$here/requirements.txt" ]; then
        rm -rf "$out/python"
        try "python3 -m venv" python3 -m venv "$out/python"
        try "pip install" "$out/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
        touch "$out/python/installed"
    fi
    "$out/python/bin/python" "$here/make_model.py" "$out/tiny.gguf.new"
    mv "$out/tiny.gguf.new" "$out/tiny.gguf"
}

compile() {
    newer=$(find "$here" "$root/schema/manifest.capnp" "$root/abi/include/kv_store_v1.h" -type f \
        -newer "$out/llama_session" 2>/dev/null || echo "never built")
    [ -e "$out/llama_session" ] && [ -z "$newer" ] && return
    mkdir -p "$out/schema"
    capnp compile -oc++:"$out/schema" --src-prefix="$root/schema" "$root/schema/manifest.capnp"
    g++ -std=c++17 -O2 -Wall -Wextra -Werror -DLLAMA_LIBRARY_DIR="\"$libraries\"" \
        -I "$root/abi/include" -isystem "$out/schema" \
        -isystem "$out/include/include" -isystem "$out/include/ggml/include" \
        "$here"/*.cc -x c++ "$out/schema/manifest.capnp.c++" -x none -o "$out/llama_session.new" \
        -L "$libraries" -Wl,-rpath,"$libraries" -l:libllama.v0.5.0.so -l:libggml.v0.5.0.so -l:libggml-base.so \
        -lcapnp -lkj -ldl
    mv "$out/llama_session.new" "$out/llama_session"
}

check_tools
mkdir -p "$out"
exec 9>"$out/lock"
flock 9
fetch_libraries
make_model
compile
