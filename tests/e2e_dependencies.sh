# e2e_dependencies.sh - tools/install_dependencies.sh on machines that lack things, all of them pretended
. "$(dirname "$0")/kit/e2e.sh"
script=$tests/../tools/install_dependencies.sh
shell=$(command -v sh)

# A machine with nothing on it; `machine NAME` pretends that a program is there, which notes how it was called.
mkdir bin
for tool in awk env true; do ln -s "$(type -P $tool)" bin/; done
machine()
{
    printf '#!%s\necho "%s $*" >>calls\n%s\n' "$shell" "$1" "${2:-}" >bin/"$1"
    chmod +x bin/"$1"
}
run()
{
    n_checks=$((n_checks + 1))
    rm -f calls
    PATH=$folder/bin CC=cc "$shell" "$script" "$1" >stdout 2>stderr
    local status=$?
    [ $status = "$2" ] || failed "exit status $status, must be $2: $(cat stderr)" install_dependencies.sh "$1"
}

# A user without rights: told what to type, with every package manager.
machine id 'echo 1000'
run build 2
says 'missing: C compiler, make, cmake>=3.22, pkg-config, jansson, PCRE2, cmocka' stderr
says 'sudo apt-get update && sudo apt-get install --yes --no-install-recommends gcc libc6-dev make cmake' stderr
says 'sudo dnf install gcc' stderr
says 'sudo pacman -S --needed gcc' stderr
machine apt-get
run build 2
machine sudo 'exit 1' # wants a password
run build 2
grep -q '^apt-get' calls && failed "$(cat calls)" 'apt-get without rights'

# With rights, of one's own or through sudo; what is still missing then is said.
machine sudo 'shift; exec "$@"'
run build 2
says 'sudo -n apt-get update' calls
says 'sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends gcc' calls
rm bin/sudo
machine id 'echo 0'
run build 2
says 'apt-get update' calls
says 'apt-get install --yes --no-install-recommends gcc libc6-dev make' calls
run ci 2
says 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user' calls
machine apt-get 'exit 100' # no network
run build 2
says 'sudo apt-get update' stderr

# An old CMake is as good as none; a machine that has all is left alone, in silence.
for tool in cc make pkg-config; do machine $tool; done
machine cmake 'echo cmake version 3.18.4'
run build 2
says 'missing: cmake>=3.22' stderr
machine cmake 'echo cmake version 3.22.1'
run build 0
[ ! -s stdout ] && [ ! -s stderr ] || failed "printed $(cat stdout stderr)" 'install_dependencies.sh with all there'
grep -q '^apt-get' calls && failed "$(cat calls)" 'apt-get with all there'
run nonsense 2
says "'nonsense' is no group" stderr
finish
