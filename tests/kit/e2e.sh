# e2e.sh - what the e2e_<command>.sh tests share; sourced with the paths of the program, compare_npy and
# json_get as $1, $2, $3
#
# Runs in a folder of its own, which goes away at the end. A check that fails prints one line with
# the command; the script then exits 1 when it is done.
set -u
program=$1 compare_npy=$2 json_get=$3
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d "${TMPDIR:-/tmp}/tessera-e2e-XXXXXX")
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
ln -s "$tests/fixtures" fixtures # a path without spaces, whatever the repository's is
fixtures=fixtures/cli n_checks=0 n_failed=0

tessera() { "$program" "$@"; }

# failed WHY COMMAND...
failed()
{
    n_failed=$((n_failed + 1))
    printf 'FAILED: %s\n    %s\n' "${*:2}" "$1"
}

# ok COMMAND...: exits 0. Its stdout and stderr stay in the files of these names.
ok()
{
    n_checks=$((n_checks + 1))
    "$@" >stdout 2>stderr
    local status=$?
    [ $status = 0 ] || failed "exit status $status, must be 0: $(cat stderr)" "$@"
}

# fails STATUS WORDS COMMAND...: exits with it, nothing on stdout, one line on stderr that holds the words.
fails()
{
    n_checks=$((n_checks + 1))
    "${@:3}" >stdout 2>stderr
    local status=$?
    if [ $status != "$1" ]; then
        failed "exit status $status, must be $1: $(cat stderr)" "${@:3}"
    elif [ -s stdout ] || [ "$(wc -l <stderr)" != 1 ] || ! grep -qF -- "$2" stderr; then
        failed "must print one line with '$2' on stderr alone, printed '$(cat stdout stderr)'" "${@:3}"
    fi
}

# says WORDS [FILE]: the last command printed them on stdout (or the file that is named).
says()
{
    n_checks=$((n_checks + 1))
    grep -qF -- "$1" "${2:-stdout}" || failed "'$1' is not in ${2:-stdout}: $(cat "${2:-stdout}")" says
}

# has KEY VALUE: the last command printed one JSON object with it.
has()
{
    n_checks=$((n_checks + 1))
    local value
    value=$("$json_get" stdout "$1" 2>&1)
    [ "$value" = "$2" ] || failed "$1 is $value, must be $2: $(cat stdout)" has "$@"
}

# check WHAT COMMAND...: the command succeeds.
check()
{
    n_checks=$((n_checks + 1))
    "${@:2}" || failed "$1" "${@:2}"
}

# close GOT WANT [TOLERANCE]: two .npy files hold the same numbers, exactly by default.
close()
{
    n_checks=$((n_checks + 1))
    local why
    why=$("$compare_npy" "$1" "$2" "${3:-0}" 2>&1) || failed "$why" close "$@"
}

# same GOT WANT: the same bytes.
same()
{
    n_checks=$((n_checks + 1))
    cmp -s "$1" "$2" || failed "the files differ" same "$@"
}

# absent FILE: a command that failed left neither the file nor a part of it.
absent()
{
    n_checks=$((n_checks + 1))
    [ -z "$(find . -name "$1*")" ] || failed "there is $(find . -name "$1*")" absent "$@"
}

finish()
{
    echo "$n_checks checks, $n_failed failed"
    [ $n_failed = 0 ]
}
