# e2e_cli.sh - what all commands have in common: help, versions, unknown words, common options, stdout that fails
. "$(dirname "$0")/kit/e2e.sh"
f=$fixtures/gemm

ok tessera --help
says 'usage: tessera <command> [options] [files]'
commands=$(sed -n '/^  [a-z]/s/^  \([a-z]*\) .*/\1/p' stdout | grep -v tessera)
ok tessera --version
grep -qxE 'tessera [0-9]+\.[0-9]+\.[0-9]+' stdout || failed "$(cat stdout)" tessera --version

# Every command has help with an example, and refuses what it does not know.
for command in $commands; do
    ok tessera $command --help
    says "usage: tessera $command"
    says 'example:'
    says "  tessera $command" # the example itself
    ok tessera $command -h
    fails 2 "tessera $command: --nonsense: unknown option" tessera $command --nonsense
    fails 2 "tessera $command: -q: unknown option" tessera $command -q
    fails 2 "tessera $command: --threads: 0 is out of range, must be 1 to 1024" tessera $command --threads 0
    fails 2 "tessera $command: --threads: 'many' is not a whole number" tessera $command --threads many
    fails 2 "tessera $command: --threads: needs a value" tessera $command --threads
done
for command in gemm attention info train generate; do
    case " $(echo $commands) " in
    *" $command "*) n_checks=$((n_checks + 1)) ;;
    *) failed "is not in the list: $commands" tessera --help ;;
    esac
done

fails 2 "tessera: 'nonsense' is no command" tessera nonsense
fails 2 "tessera: '--nonsense' is no option" tessera --nonsense
fails 2 "tessera: 'a?b' is no command" tessera $'a\nb'
"$program" >stdout 2>stderr
[ $? = 2 ] && [ ! -s stdout ] && grep -q usage: stderr || failed 'must print the usage on stderr, exit 2' tessera

# Common options mean the same everywhere.
run="tessera gemm --a $f/a.npy --b $f/b.npy --out out.npy"
fails 2 "--backend: 'abacus' is not in this build, must be cpu or reference" $run --backend abacus
fails 1 "TESSERA_ISA is 'abacus'" env TESSERA_ISA=abacus "$program" gemm --a $f/a.npy --b $f/b.npy --out out.npy
absent out.npy
ok $run --threads=2 --backend=reference --json
says '"backend":"reference"'
ok tessera gemm --a $f/b.npy --a $f/a.npy --b $f/b.npy --out out.npy # the last one counts
close out.npy $f/want.npy

# A full disk behind stdout is not success.
if [ -w /dev/full ]; then
    n_checks=$((n_checks + 1))
    "$program" info >/dev/full 2>stderr
    [ $? = 1 ] && grep -q 'writing to stdout' stderr || failed "$(cat stderr)" 'tessera info >/dev/full'
else
    echo 'not checked: there is no /dev/full here'
fi
finish
