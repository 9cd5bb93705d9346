# What people do here. Every recipe builds first: a plugin and the runner must come from one build.
#
# Paths that you type are taken from where you are; what you do not name lies here, in experiments/, runs/ and reports/out/.
# So `just -f PATH/justfile sweep mine.ron` works from any folder.

# Arguments reach the program as they were typed: rq(depth: 8) is one word.
set positional-arguments

# Cargo features of every build: `auto`, a list such as `cuda`, or nothing. `RQLAB_FEATURES= just build` is for the CPU alone.
wanted := env("RQLAB_FEATURES", "auto")

# With `auto`, `cuda` where the build will succeed: headers, a GPU that answers, and a compiler that knows its kind.
features := if wanted == "auto" { ```
    for root in "${CUDA_PATH:-}" "${CUDA_ROOT:-}" "${CUDA_TOOLKIT_ROOT_DIR:-}" /usr /usr/local/cuda /opt/cuda /usr/lib/cuda; do
        [ -n "$root" ] && [ -f "$root/include/cuda.h" ] || continue
        PATH="$PATH:$root/bin:/usr/local/cuda/bin"
        command -v nvcc >/dev/null && command -v nvidia-smi >/dev/null || break
        kind=$(nvidia-smi --query-gpu=compute_cap --format=csv 2>/dev/null | sed -n '2s/\.//p')
        [ -n "$kind" ] && nvcc --list-gpu-code 2>/dev/null | grep -qx "sm_$kind" && echo cuda
        break
    done
``` } else { wanted }

# Where the CUDA compiler usually lies.
export PATH := env("PATH") + ":" + env("CUDA_PATH", "/usr/local/cuda") / "bin"

# Where cargo builds to.
export CARGO_TARGET_DIR := absolute_path(env("CARGO_TARGET_DIR", "target"))
built := CARGO_TARGET_DIR / "release"
rqlab := quote(built / "rqlab")

# Where experiments are found by their stems, and where runs and reports go.
export RQLAB_HOME := env("RQLAB_HOME", justfile_directory())

# Lists the recipes.
default:
    @just --list --unsorted

# Builds the runner and all plugins. The first time takes some ten minutes.
build:
    cargo build --release --workspace --features "{{features}}"

# Runs an experiment and writes its report: `just sweep depth-vs-codebook`.
[no-cd]
sweep NAME *ARGS: build
    {{rqlab}} sweep "$@"

# Shows what an experiment would run, and how long that takes.
[no-cd]
plan NAME *ARGS: build
    {{rqlab}} plan "$@"

# Runs any command of the laboratory: `just run describe rq`.
[no-cd]
run *ARGS: build
    {{rqlab}} "$@"

# Keeps an experiment's report up to date while its file and the plugins change.
[no-cd]
watch NAME *ARGS: build
    {{rqlab}} watch "$@"

# Runs all tests.
test: build
    env -u RQLAB_HOME cargo test --release --workspace --features "{{features}}"

# A thousand trials on a Slurm of this machine, through preemption, kills and a full disk: ten minutes to an hour, best as root.
slurm-thousand: build
    cargo test --release --package rqlab-tests --test slurm -- --ignored --nocapture a_thousand

# Shows what a GPU must show, in seven minutes: agreement with the CPU, then speed. A bundle with CUDA has the tests that it runs.
[no-cd]
check-gpu *ARGS: build
    {{rqlab}} check-gpu "$@"

# Tries faults in large numbers, for a night: kills, damaged files, inputs for every reader. See docs/faults.md.
nightly KILLS="1000" INPUTS="1000000": build
    #!/usr/bin/env sh
    set -eu
    unset RQLAB_HOME
    export RQLAB_KILLS="$1" RQLAB_INPUTS="$2" RQLAB_DAMAGES=1000 RQLAB_SEED="${RQLAB_SEED:-$(date +%Y%m%d)}"
    echo "by the seed $RQLAB_SEED"
    cargo test --release --workspace --features "{{features}}" --no-run
    for trial in kill_and_resume damage storage fuzzing; do
        cargo test --release --workspace --features "{{features}}" --test "$trial" -- --nocapture
    done
    export PROPTEST_CASES=20000 PROPTEST_RNG_SEED="$RQLAB_SEED"
    cargo test --release --workspace --features "{{features}}" --test reader --test handshake --test made --test checkpoints --test configs

# Runs the team of threads through all orders, under loom: half a minute, most of it the build.
threads:
    cargo run --release --manifest-path tests/loom/Cargo.toml

# Measures how fast training, encoding, sampling and single operations are here: `just bench --only rq_sample`.
[no-cd]
bench *ARGS: build
    {{rqlab}} bench "$@"

# The folder of the peers' benchmark.
peers := absolute_path(env("PEERS", "../shared/peers"))

# The same beside PyTorch and faiss, timed in turn: `just bench-peers VENV --only rq_sample`.
[no-cd]
bench-peers VENV *ARGS: build
    #!/usr/bin/env sh
    set -eu
    venv=$1
    shift
    if [ ! -f "{{peers}}/bench.py" ]; then
        echo "{{peers}}/bench.py is missing: set PEERS to the folder of the peers' benchmark" >&2
        exit 2
    fi
    {{rqlab}} bench --peers "{{peers}}" --peers {{quote(justfile_directory() / "tests/peers")}} --python "$venv/bin/python" "$@"

# Measures all that docs/performance.md shows, and writes its tables and drawings anew: half an hour.
[no-cd]
performance VENV: build
    #!/usr/bin/env sh
    set -eu
    docs={{quote(justfile_directory() / "docs")}}
    {{quote(just_executable())}} --justfile {{quote(justfile())}} bench-peers "$1" --markdown "$docs/performance.md"
    {{rqlab}} bench --scaling --figures "$docs/performance" --markdown "$docs/performance.md"

# Measures single operations of the tensor with criterion, which compares with the last time: `just bench-operations conv`.
bench-operations *NAME:
    #!/usr/bin/env sh
    set -eu
    bench() { cargo bench --package rqlab-tensor --bench ops -- "$@"; }
    if [ -z "$(bench --list "$@")" ]; then
        echo "no operation is called $*; there are" >&2
        bench --list | sed -n 's/: benchmark$//p' >&2
        exit 2
    fi
    bench "$@"

# Compares with the published systems: every case folder under DIR.
[no-cd]
parity DIR: build
    {{quote(built / "parity")}} "$1"

# Builds an emulated GPU into DIR, for tests of kernels on a machine without one: see core/tensor/emulation/README.md.
[no-cd]
gpu-emulation DIR:
    {{quote(justfile_directory() / "core/tensor/emulation/build.sh")}} "$1"

# Makes DIR a folder that runs on machines without Rust: program, libraries, plugins, experiments, docs.
[no-cd]
bundle DIR: build
    {{quote(justfile_directory() / "bundle/make.sh")}} {{quote(built)}} "{{features}}" "$1"

# What the checks of a change run: format, lints, documentation.
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- --deny warnings
    RUSTDOCFLAGS="--deny warnings" cargo doc --release --workspace --no-deps

# Puts `rqlab` where shells find it: a link to the one built here, beside which are its libraries and plugins.
[no-cd]
install DIR=(home_directory() / ".local/bin"): build
    #!/usr/bin/env sh
    set -eu
    # `just install DIR=/x` means what `just install /x` says.
    dir=${1#DIR=}
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    ln -sf {{rqlab}} "$dir/rqlab"
    echo "linked $dir/rqlab to {{built}}, which must stay; $dir must be on your PATH"

# Installs completions for a shell: bash, zsh or fish.
install-completions SHELL: build
    #!/usr/bin/env sh
    set -eu
    case "$1" in
        bash) file="$HOME/.local/share/bash-completion/completions/rqlab" ;;
        zsh) file="$HOME/.zfunc/_rqlab" ;;
        fish) file="$HOME/.config/fish/completions/rqlab.fish" ;;
        *) echo "no completions for $1: bash, zsh or fish" >&2; exit 2 ;;
    esac
    mkdir -p "$(dirname "$file")"
    {{rqlab}} completions "$1" > "$file"
    echo "wrote $file"
