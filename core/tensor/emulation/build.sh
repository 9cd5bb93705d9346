#!/bin/sh
# build.sh DIR: puts the emulated driver, compiler and cuBLAS into DIR. Needs g++ on x86-64 Linux.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
g++ -std=c++17 -O2 -shared -fPIC -Wall -Wextra -o .emulation.so "$here"/*.cpp -ldl -pthread
mv .emulation.so libemulation.so
cp "$here/device.h" .
for name in cuda.so.1 nvrtc.so.12 nvrtc.so.13 cublas.so.12 cublas.so.13 cublasLt.so.12 cublasLt.so.13 curand.so.10; do
    ln -sf libemulation.so "lib$name"
done
echo "export LD_LIBRARY_PATH=$(pwd)\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
