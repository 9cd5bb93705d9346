# What people do here. Every recipe builds first: a plugin and the runner must come from one build.

# Arguments reach the program as they were typed: rq(depth: 8) is one word.
set positional-arguments

# Lists the recipes.
default:
    @just --list --unsorted

# Builds the runner and all plugins. The first time takes some ten minutes.
build:
    cargo build --release --workspace

# Runs an experiment and writes its report: `just sweep depth-vs-codebook`.
sweep NAME *ARGS: build
    target/release/rqlab sweep "$@"

# Shows what an experiment would run, and how long that takes.
plan NAME *ARGS: build
    target/release/rqlab plan "$@"

# Runs any command of the laboratory: `just run plugins describe rq`.
run *ARGS: build
    target/release/rqlab "$@"

# Keeps an experiment's report up to date while its file and the plugins change.
watch NAME *ARGS: build
    target/release/rqlab watch "$@"

# Runs all tests.
test: build
    cargo test --release --workspace

# Measures how fast training, encoding, sampling and single operations are here: `just bench --only rq_sample`.
bench *ARGS: build
    target/release/rqlab bench "$@"

# The folder of the peers' benchmark.
peers := env("PEERS", "../shared/peers")

# The same beside PyTorch and faiss, timed in turn: `just bench-peers VENV --only rq_sample`.
bench-peers VENV *ARGS: build
    #!/usr/bin/env sh
    set -eu
    shift
    if [ ! -f "{{peers}}/bench.py" ]; then
        echo "{{peers}}/bench.py is missing: set PEERS to the folder of the peers' benchmark" >&2
        exit 2
    fi
    target/release/rqlab bench --peers "{{peers}}" --python "{{VENV}}/bin/python" "$@"

# Measures all that docs/performance.md shows, and writes its tables and drawings anew: half an hour.
performance VENV: build
    just bench-peers "{{VENV}}" --markdown docs/performance.md
    target/release/rqlab bench --scaling --figures docs/performance --markdown docs/performance.md

# Measures single operations of the tensor with criterion, which compares with the last time: `just bench-operations conv`.
bench-operations *ARGS:
    cargo bench --package rqlab-tensor "$@"

# Compares with the published systems: every case folder under DIR.
parity DIR: build
    target/release/parity "{{DIR}}"

# Builds an emulated GPU into DIR, for tests of kernels on a machine without one: see core/tensor/emulation/README.md.
gpu-emulation DIR:
    core/tensor/emulation/build.sh "{{DIR}}"

# What the checks of a change run: format, lints, documentation.
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- --deny warnings
    RUSTDOCFLAGS="--deny warnings" cargo doc --release --workspace --no-deps

# Puts `rqlab` where shells find it: a link to the one built here, beside which are its libraries and plugins.
install DIR=(home_directory() / ".local/bin"): build
    mkdir -p "{{DIR}}"
    ln -sf "{{justfile_directory()}}/target/release/rqlab" "{{DIR}}/rqlab"
    @echo "linked {{DIR}}/rqlab; this folder must stay, and {{DIR}} must be on your PATH"

# Installs completions for a shell: bash, zsh or fish.
install-completions SHELL: build
    #!/usr/bin/env sh
    set -eu
    case "{{SHELL}}" in
        bash) file="$HOME/.local/share/bash-completion/completions/rqlab" ;;
        zsh) file="$HOME/.zfunc/_rqlab" ;;
        fish) file="$HOME/.config/fish/completions/rqlab.fish" ;;
        *) echo "no completions for {{SHELL}}: bash, zsh or fish" >&2; exit 2 ;;
    esac
    mkdir -p "$(dirname "$file")"
    target/release/rqlab completions "{{SHELL}}" > "$file"
    echo "wrote $file"
