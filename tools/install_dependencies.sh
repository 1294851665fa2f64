#!/bin/sh
# install_dependencies.sh - sees what building needs, and installs what is missing
#
#   tools/install_dependencies.sh [build|lint|ci]
#
#   build   compiler, make, cmake >= 3.22, pkg-config, jansson, PCRE2, cmocka, utf8proc
#   lint    and clang-format, clang-tidy, nm, a C++ compiler
#   ci      and clang with its sanitizer runtimes, the aarch64 compiler and C library, qemu-user
#
# Nothing missing: nothing happens. Else, where apt-get is: as root installs, without questions and
# without recommended packages; as a user the same through `sudo -n`. Where neither is possible, the
# command to type is printed and the exit status is 2.
set -eu

group=${1:-build}

# lacks WHAT APT DNF PACMAN: note something missing and the packages that hold it.
lacks()
{
    missing="$missing${missing:+,} $1" apt="$apt $2" dnf="$dnf $3" pacman="$pacman $4"
}

have() { command -v "$1" >/dev/null 2>&1; }

# CC may be several words, "ccache gcc".
compiles_c()
{
    printf '#include <stdio.h>\nint main(void) { return 0; }\n' | ${CC:-cc} -x c -o /dev/null - 2>/dev/null
}

cmake_is_new_enough()
{
    have cmake && cmake --version |
        awk 'NR == 1 { split($3, v, "."); exit !(v[1] > 3 || (v[1] == 3 && v[2] >= 22)) }'
}

need_build()
{
    compiles_c || lacks 'C compiler' 'gcc libc6-dev' 'gcc glibc-devel' 'gcc'
    have make || lacks make make make make
    cmake_is_new_enough || lacks 'cmake>=3.22' cmake cmake cmake
    have pkg-config || lacks pkg-config pkg-config pkgconf-pkg-config pkgconf
    pkg-config --exists jansson 2>/dev/null || lacks jansson libjansson-dev jansson-devel jansson
    pkg-config --exists libpcre2-8 2>/dev/null || lacks PCRE2 libpcre2-dev pcre2-devel pcre2
    pkg-config --exists cmocka 2>/dev/null || lacks cmocka libcmocka-dev libcmocka-devel cmocka
    # Only tokenizers that normalize their text need it: taken along, never a reason to stop.
    [ -z "$missing" ] || want_utf8proc
}

want_utf8proc()
{
    pkg-config --exists libutf8proc 2>/dev/null || lacks utf8proc libutf8proc-dev utf8proc-devel libutf8proc
}

need_lint()
{
    have clang-format || lacks clang-format clang-format clang-tools-extra clang
    have clang-tidy || lacks clang-tidy clang-tidy clang-tools-extra clang
    have nm || lacks nm binutils binutils binutils
    have c++ || lacks 'C++ compiler' g++ gcc-c++ gcc
}

# True if clang links a program with the runtime of -fsanitize=$1.
clang_has()
{
    have clang && printf 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return d && !n; }\n%s\n' \
        "${2:-}" | clang -x c -fsanitize="$1" -o /dev/null - 2>/dev/null
}

need_ci()
{
    want_utf8proc
    if have clang; then
        { clang_has fuzzer && clang_has address,undefined 'int main(void) { return 0; }'; } ||
            lacks 'clang runtimes' libclang-rt-dev compiler-rt compiler-rt
    else
        lacks clang clang clang clang
    fi
    have aarch64-linux-gnu-gcc || lacks 'aarch64 compiler' 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross' \
        gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc
    have qemu-aarch64 || have qemu-aarch64-static || lacks qemu-user qemu-user qemu-user qemu-user
}

look()
{
    apt='' dnf='' pacman='' missing=''
    need_build
    [ "$group" = build ] || need_lint
    [ "$group" != ci ] || need_ci
}

print_commands()
{
    echo "install it with the command of your system, then try again:" >&2
    echo "    Debian, Ubuntu:  sudo apt-get update && sudo apt-get install --yes --no-install-recommends$apt" >&2
    echo "    Fedora:          sudo dnf install$dnf" >&2
    echo "    Arch:            sudo pacman -S --needed$pacman" >&2
}

case $group in
build | lint | ci) ;;
*) echo "install_dependencies.sh: '$group' is no group, must be build, lint or ci" >&2; exit 2 ;;
esac

as_root=''
if [ "$(id -u)" -ne 0 ]; then as_root='sudo -n'; fi
# A second look: some parts can be seen only once others are there (clang's runtimes).
for attempt in 1 2 3; do
    look
    [ -n "$missing" ] || exit 0
    echo "missing:$missing" >&2
    [ "$attempt" -lt 3 ] && have apt-get && { [ -z "$as_root" ] || $as_root true 2>/dev/null; } || break
    $as_root apt-get update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $apt || break
done
print_commands
exit 2
