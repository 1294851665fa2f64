#!/bin/sh
# get_peers.sh DIR - fetches the newest OpenBLAS, MKL and oneDNN (Python wheels) into a folder of their own
#
# Prints the arguments with which `tessera bench gemm` measures beside them:
#
#     tessera bench gemm $(tools/get_peers.sh build/peers)
#
# What is there already is not fetched again; remove DIR to update. About 3 GB. BLIS has no wheel of its own:
# the distribution's is found without an argument.
set -eu
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
directory=$(cd "$1" && pwd)
case $directory in
*[[:space:]]*) echo "$0: $directory: a path with spaces cannot be printed as arguments" >&2; exit 2 ;;
esac

# fetch FOLDER PACKAGE...
fetch()
{
    folder=$directory/$1
    shift
    [ -e "$folder/complete" ] && return
    echo "fetching $*" >&2
    rm -rf "$folder"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --no-warn-conflicts --no-warn-script-location --only-binary :all: --ignore-installed \
        --prefix "$folder" "$@" >&2
    touch "$folder/complete"
}

# peer NAME FOLDER PATTERN: the argument for the first library that matches.
peer()
{
    library=$(find "$directory/$2" -name "$3" | sort | head -n 1)
    [ -n "$library" ] || { echo "$0: there is no $3 in $directory/$2" >&2; exit 1; }
    printf -- '--peer %s=%s\n' "$1" "$library"
}

fetch openblas scipy-openblas32
fetch mkl mkl
fetch onednn onednn
peer openblas openblas 'libscipy_openblas*.so'
peer mkl mkl 'libmkl_rt.so.*'
peer onednn onednn 'libdnnl.so.3'
