#!/usr/bin/env sh
# Makes DIR a folder that runs on machines without Rust; `just bundle DIR` builds first and calls this.
# Usage: make.sh BUILT FEATURES DIR    BUILT: where cargo built to, target/release; FEATURES: those of that build
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
built=$1 features=$2 dir=${3#DIR=}

if [ -e "$dir" ] && ! rmdir "$dir" 2>/dev/null; then
    echo "$dir is there already: name a folder that is not, or remove it" >&2
    exit 2
fi
mkdir -p "$(dirname "$dir")"
made=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$made"' EXIT
chmod 755 "$made"

# Nothing is stripped: a plugin carries its handshake and its linker's digest, and the program learns from its own whether to ask
# for the latter.
mkdir -p "$made/bin" "$made/lib/rqlab"
cp "$built/rqlab" "$built/rqlab-bench" "$built/rqlab-check-gpu" "$made/bin/"
cp "$built/librqlab_sdk.so" "$made/lib/rqlab/"
for manifest in "$root"/plugins/*/*/Cargo.toml; do
    package=$(sed -n 's/^name = "\(.*\)"$/\1/p' "$manifest" | head -n 1)
    cp "$built/lib$(echo "$package" | tr - _).so" "$made/lib/rqlab/"
done
# Plugins that `rqlab plugins build` made for this build.
[ ! -d "$built/plugins" ] || cp -r "$built/plugins" "$made/bin/"
cp -r "$root/experiments" "$root/docs" "$root/ARCHITECTURE.md" "$root/CHANGELOG.md" "$root"/LICENSE-* "$made/"
cp "$here/README.md" "$here/check-gpu" "$made/"
# What docs/gpu.md leads to.
mkdir -p "$made/core/tensor/emulation"
cp "$root/core/tensor/emulation/README.md" "$made/core/tensor/emulation/"
# What speeds are set beside, with a Python that has PyTorch.
mkdir "$made/peers"
cp -r "$root/tests/peers" "$made/peers/networks"
peers=${PEERS:-$root/../shared/peers}
[ ! -f "$peers/bench.py" ] || cp -r "$peers" "$made/peers/models"

case $features in *cuda*)
    # What a GPU must show is shown by tests, too. Each is built as it is for `cargo test`, so that no library is built anew.
    tests() {
        (cd "$root" && cargo test --release --features "$features" --no-run --message-format=json "$@") |
            sed -n '/"profile":{[^}]*"test":true/s/.*"executable":"\([^"]*\)".*/\1/p'
    }
    mkdir "$made/tests"
    cp "$(tests --workspace --test gpu)" "$made/tests/gpu"
    cp "$(features=cuda; tests --package rqlab-tensor --lib)" "$made/tests/operations"
esac

# Libraries from elsewhere than the system's folders come along. The C library and the compiler's own are the system's, and CUDA's
# belong to the driver and the toolkit of the machine.
LD_LIBRARY_PATH="$built${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ldd "$built/rqlab" |
    awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
    grep -vE '^(/usr)?/lib|/librqlab_|/lib(cuda|cublas|cublasLt|nvrtc|curand)\.so' |
    while read -r library; do cp -L "$library" "$made/lib/rqlab/"; done
elf() { find "$made" -type f \( -name '*.so*' -o -perm -u+x \) -exec readelf "$1" {} + 2>/dev/null || true; }
glibc=$(elf --version-info | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
needs=$(elf --dynamic | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u | grep -vE '^(libc|libm|ld-linux.*)\.so' |
    while read -r name; do [ -f "$made/lib/rqlab/$name" ] || printf ', %s' "$name"; done)
{
    echo "program   $("$built/rqlab" --version)"
    echo "commit    $(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)"
    echo "built     by $(rustc --version) for $(rustc -vV | sed -n 's/^host: //p')"
    echo "features  ${features:-none: for the CPU alone}"
    echo "needs     glibc ${glibc#GLIBC_} or newer$needs"
} > "$made/bundle.txt"

mv "$made" "$dir"
trap - EXIT
cat "$dir/bundle.txt"
echo "made $dir, $(du -sh "$dir" | cut -f 1)"
