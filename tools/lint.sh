#!/usr/bin/env bash
# lint.sh - the rules of the house that compilers do not check
#
#   tools/lint.sh [BUILD_DIR]      a built release tree, default build/release
#
# Runs every check, prints a line for each with what it found, and exits 1 if any found something.
set -u
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 1
build=${1:-build/release}
if [ ! -f "$build/compile_commands.json" ]; then
    echo "lint: $build is not a build directory (make build)" >&2
    exit 1
fi
for tool in clang-format clang-tidy nm cc c++; do
    if ! command -v "$tool" >/dev/null; then
        echo "lint: $tool is missing (tools/install_dependencies.sh lint)" >&2
        exit 1
    fi
done
jobs=$(getconf _NPROCESSORS_ONLN)
failed=0

# Our own sources, tracked or about to be.
sources()
{
    find include src cli tests bench examples -name '*.[ch]' 2>/dev/null | sort
}

# check NAME FUNCTION: the function prints what is wrong, nothing if all is well.
check()
{
    local start=$SECONDS found
    found=$("$2" 2>&1)
    if [ -n "$found" ]; then
        failed=1
        printf '%s\n' "$found" | sed 's/^/    /'
    fi
    printf 'lint: %-44s %s (%d s)\n' "$1" "$([ -z "$found" ] && echo ok || echo FAILED)" $((SECONDS - start))
}

formatting()
{
    sources | xargs -P "$jobs" -n 8 clang-format --dry-run -Werror 2>&1 | grep -E ': (error|warning):'
}

tidiness()
{
    # Only files that this build compiles; a kernel once, not once per instruction set.
    local files
    files=$(sed -n 's/^ *"file": "\(.*\)".*/\1/p' "$build/compile_commands.json" | sort -u)
    printf '%s\n' "$files" | xargs -P "$jobs" -n 4 clang-tidy -p "$build" --quiet 2>/dev/null |
        grep -E ': (error|warning):' | sort -u
}

# Which folders a folder's files may include, besides themselves. Everything points down.
include_directions()
{
    sources | grep -E '^(include|src|cli)/' | xargs awk '
        BEGIN {
            allowed["include"]   = "tessera"
            allowed["base"]      = "tessera base"
            allowed["format"]    = "tessera base format"
            allowed["backend"]   = "tessera base backend"
            allowed["reference"] = "tessera base backend reference"
            allowed["cpu"]       = "tessera base backend cpu kernel"
            allowed["kernel"]    = "tessera base kernel words"
            allowed["op"]        = "tessera base backend op"
            allowed["tape"]      = "tessera base backend op tape"
            allowed["nn"]        = "tessera base backend op tape nn"
            allowed["model"]     = "tessera base backend op tape nn format model"
            allowed["train"]     = "tessera base backend op tape nn format model train"
            allowed["cli"]       = "tessera base backend cpu op tape nn format model train cli"
        }
        function layer(path) {
            if (path ~ /^tessera\//) return "tessera"
            if (path ~ /^backend\/cpu\/(vec|vec_lanes|vec_math|vec_dropout|vec_int|vec_bf16|tile|isa)\.h$/) return "words"
            if (path ~ /^backend\/cpu\/kernel\//) return "kernel"
            if (path ~ /^backend\/cpu\//) return "cpu"
            if (path ~ /^backend\/reference\//) return "reference"
            sub(/\/.*/, "", path)
            return path
        }
        /^#include "/ {
            split($0, part, "\"")
            if (part[2] !~ /\//) next
            from = FILENAME
            if (!sub(/^src\//, "", from)) from = from ~ /^include/ ? "include/" : "cli/"
            from = layer(from)
            if (from == "words") from = "kernel"
            to = layer(part[2])
            if (to == "words" && from == "cpu") to = "cpu"
            if (to == "words" && from == "cli") to = "cli"
            if (!(from in allowed)) printf "%s: folder has no rule in tools/lint.sh\n", FILENAME
            else if (index(" " allowed[from] " ", " " to " ") == 0)
                printf "%s:%d: %s may not include \"%s\"\n", FILENAME, FNR, from, part[2]
        }'
}

declared_symbols()
{
    grep -hv "^#" include/tessera/*.h | tr '\n' ' ' | grep -oE 'TSR_API [^(;]*\(' | grep -oE '[a-z0-9_]+\($' | tr -d '(' | sort -u
}

exported_symbols()
{
    nm -D --defined-only "$build/src/libtessera.so" | awk '{ print $3 }' | sort -u
}

public_symbols()
{
    comm -13 <(declared_symbols) <(exported_symbols) | sed 's/$/: exported, but no public header declares it TSR_API/'
    comm -23 <(declared_symbols) <(exported_symbols) | sed 's/$/: declared TSR_API, but not exported/'
    exported_symbols | grep -v '^tsr_' | sed 's/$/: exported without the prefix tsr_/'
}

# What is compiled for an instruction set must not be mistaken for the same code of another.
per_set_symbols()
{
    local objects object set
    objects=$(grep -oE 'CMakeFiles/kernels_[^ "]*\.o' "$build/compile_commands.json" | sort -u)
    [ -n "$objects" ] || echo "$build compiles no kernels"
    for object in $objects; do
        set=${object#CMakeFiles/kernels_} set=${set%%.dir*}
        nm --defined-only --extern-only "$build/src/$object" |
            awk -v set="_$set" 'NF == 3 && substr($3, length($3) - length(set) + 1) != set {
                print $3 ": a global of the " substr(set, 2) " objects, must end in " set }'
    done
}

public_headers()
{
    local header language
    for header in include/tessera/*.h; do
        for language in 'cc -x c -std=c11' 'c++ -x c++ -std=c++11'; do
            echo "#include \"tessera/${header##*/}\"" |
                $language -Iinclude -Wall -Wextra -Wpedantic -Wshadow -Werror -fsyntax-only - ||
                echo "$header does not compile alone with $language"
        done
    done
}

# Files and functions that the derivation of attention points at.
names_in_docs()
{
    local name
    grep -oE '`[A-Za-z0-9_/]+(\.[ch])?`' docs/ATTENTION.md | tr -d '`' | sort -u | while read -r name; do
        case $name in
        *.[ch]) [ -f "$name" ] || [ -f "src/$name" ] || [ -f "src/backend/$name" ] ||
            [ -f "include/$name" ] ;;
        *) grep -rqw "$name" src include ;;
        esac || echo "docs/ATTENTION.md: there is no $name"
    done
}

# A report, not a rule: long files and functions are usually two things.
lengths()
{
    sources | xargs wc -l | awk '$1 > 500 && $2 != "total" { printf "note: %s has %d lines\n", $2, $1 }'
    sources | xargs awk '
        FNR == 1 { open = 0 }
        /^\{/ { open = FNR }
        /^\}/ { if (open && FNR - open > 70) printf "note: %s:%d: a function of %d lines\n", FILENAME, open, FNR - open; open = 0 }'
}

check 'format (clang-format)' formatting
check 'mistakes (clang-tidy)' tidiness
check 'includes point down' include_directions
check 'exported symbols are the declared ones' public_symbols
check 'per-set globals carry the set' per_set_symbols
check 'public headers alone, C11 and C++11' public_headers
check 'names in docs/ATTENTION.md' names_in_docs
lengths
exit $failed
