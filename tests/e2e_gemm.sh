# e2e_gemm.sh - tessera gemm on NumPy's files: results, messages, exit statuses
. "$(dirname "$0")/kit/e2e.sh"
f=$fixtures/gemm

for backend in cpu reference; do
    gemm="tessera gemm --backend $backend --out out.npy"

    # 2 to 4 dimensions, both orders, both entries; whole numbers come out exact.
    for entry in '' --pointers; do
        for a in a a_fortran a_float16 a_float64; do
            ok $gemm $entry --a $f/$a.npy --b $f/b.npy
            close out.npy $f/want.npy
        done
        ok $gemm $entry --a $f/a.npy --b $f/b_transposed.npy --b-transposed
        close out.npy $f/want.npy
        for a in a3 a3_fortran; do
            ok $gemm $entry --a $f/$a.npy --b $f/b3.npy
            close out.npy $f/want3.npy
        done
        for a in a4 a4_fortran; do
            ok $gemm $entry --a $f/$a.npy --b $f/b4.npy
            close out.npy $f/want4.npy
            ok $gemm $entry --a $f/$a.npy --b $f/b4_transposed.npy --b-transposed
            close out.npy $f/want4.npy
        done
        ok $gemm $entry --a $f/a.npy --b $f/b.npy --alpha 2 --beta -0.5 --c $f/c.npy --bias $f/bias.npy
        close out.npy $f/want_affine.npy
        ok $gemm $entry --a $f/a_empty.npy --b $f/b_empty.npy
        close out.npy $f/want_empty.npy
    done

    ok $gemm --a $f/a.npy --b $f/b.npy --alpha=2 --beta=-0.5 --c $f/c.npy --bias $f/bias.npy --activation relu
    close out.npy $f/want_relu.npy
    for activation in gelu gelu_tanh silu; do
        ok $gemm --a $f/a.npy --b $f/b.npy --alpha 0.0625 --activation $activation
        close out.npy $f/want_$activation.npy 1e-6
    done
    for dtype in bf16 f16; do
        ok $gemm --a $f/fraction_a.npy --b $f/fraction_b.npy --dtype $dtype
        close out.npy $f/want_$dtype.npy 1e-6
    done

    # Integers: exact up to the ends of their range, which f32 sums would not be.
    for entry in '' --pointers; do
        s8="$gemm $entry --dtype s8"
        for a in s8_a s8_a_int64; do
            ok $s8 --a $f/$a.npy --b $f/s8_b.npy
            close out.npy $f/s8_want.npy
        done
        ok $s8 --a $f/s8_a.npy --b $f/s8_b_transposed.npy --b-transposed
        close out.npy $f/s8_want.npy
        ok $s8 --a $f/s8_a4.npy --b $f/s8_b4.npy
        close out.npy $f/s8_want4.npy
        ok $s8 --a $f/s8_a.npy --b $f/s8_b.npy --alpha 3 --beta -2 --c $f/s8_c.npy
        close out.npy $f/s8_want_affine.npy
    done
    fails 1 's8_wide.npy[2, 3] is 128, must be -128 to 127' $s8 --a $f/s8_wide.npy --b $f/s8_b.npy
    fails 1 '--b: fixtures/cli/gemm/b.npy holds float32, must hold int8, int32 or int64' $s8 --a $f/s8_a.npy --b $f/b.npy

    # What the operator refuses.
    fails 1 'the inner extents disagree: --a is [5, 7], --b [9, 7]' $gemm --a $f/a.npy --b $f/b_transposed.npy
    fails 1 '--b has 1 dimensions, must have 2 to 4' $gemm --a $f/a.npy --b $f/vector.npy
    fails 1 '--c is [4, 5, 9], must be [5, 9]' $gemm --a $f/a.npy --b $f/b.npy --beta 1 --c $f/want3.npy
    fails 1 '--bias is [5, 9], must be [9]' $gemm --a $f/a.npy --b $f/b.npy --bias $f/c.npy
    fails 1 'batch dimension' $gemm --a $f/a3.npy --b $f/b4.npy
done

# The number of threads does not change a bit; the result replaces the file, also one that is read.
ok tessera gemm --a $f/fraction_a.npy --b $f/fraction_b.npy --out one.npy --threads 1
ok tessera gemm --a $f/fraction_a.npy --b $f/fraction_b.npy --out three.npy --threads 3
same one.npy three.npy
cp $f/c.npy c.npy
ok tessera gemm --a $f/a.npy --b $f/b.npy --alpha 2 --beta -0.5 --c c.npy --bias $f/bias.npy --out c.npy
close c.npy $f/want_affine.npy

# Results on stdout, notes on stderr.
ok tessera gemm --a $f/a_float64.npy --b $f/b.npy --out out.npy --threads 2
says 'out.npy: float32 [5, 9]'
says 'ms on cpu, 2 threads'
says 'a_float64.npy is float64, narrowed to float32' stderr
ok tessera gemm --a $f/a.npy --b $f/b.npy --out out.npy --json --threads 1
says '"outputs":[{"path":"out.npy","dtype":"float32","shape":[5,9]}]'
says '"backend":"cpu","threads":1}'
ok tessera gemm --a $f/s8_a.npy --b $f/s8_b.npy --dtype s8 --out out.npy --backend reference
says 'out.npy: int32 [5, 9]'
ok tessera gemm --a $f/a.npy --b $f/b.npy --out $'caf\xe9.npy' --json # a name that is not UTF-8
says '"path":"caf?.npy"'
close $'caf\xe9.npy' $f/want.npy
ok tessera gemm --help
says 'usage: tessera gemm --a FILE --b FILE --out FILE [options]'
says 'example:'

# Files that are not what they must be; what was there stays.
rm -f ./*.npy
echo precious >out.npy
head -c 100 $f/a.npy >header_cut.npy
head -c 250 $f/a.npy >data_cut.npy
mkfifo fifo.npy
mkdir folder.npy
bad="tessera gemm --b $f/b.npy --out out.npy --a"
fails 1 '--a: missing.npy' $bad missing.npy
fails 1 '--a: header_cut.npy' $bad header_cut.npy
fails 1 '--a: data_cut.npy' $bad data_cut.npy
fails 1 '--a: fifo.npy' $bad fifo.npy
fails 1 '--a: folder.npy' $bad folder.npy
fails 1 '--a: /dev/null' $bad /dev/null
fails 1 'big_endian.npy' $bad $f/big_endian.npy
fails 1 'a_int8.npy holds int8, must hold float16, float32 or float64 (int8 needs --dtype s8)' $bad $f/a_int8.npy
[ "$(cat out.npy)" = precious ] || failed 'out.npy was changed' 'a gemm that failed'
fails 1 '--out: nowhere/out.npy' tessera gemm --a $f/a.npy --b $f/b.npy --out nowhere/out.npy
fails 1 'no?where.npy cannot be opened' tessera gemm --a $'no\nwhere.npy' --b $f/b.npy --out out.npy
fails 1 '--out: no?where/out.npy' tessera gemm --a $f/a.npy --b $f/b.npy --out $'no\nwhere/out.npy'
fails 1 '--out: folder.npy' tessera gemm --a $f/a.npy --b $f/b.npy --out folder.npy
absent out.npy.

# The command line.
all="--a $f/a.npy --b $f/b.npy --out never.npy"
fails 2 'tessera gemm: --a: is required' tessera gemm --b x --out y
fails 2 '--out: the name of the file is empty' tessera gemm --a $f/a.npy --b $f/b.npy --out ''
fails 1 '--out: nowhere/out.npy' tessera gemm --a missing.npy --b $f/b.npy --out nowhere/out.npy
fails 2 "tessera gemm: --alpha: 'x' is not a number" tessera gemm $all --alpha x
fails 2 "tessera gemm: --alpha: '1y' is not a number" tessera gemm $all --alpha 1y
fails 2 '--alpha: nan is out of range' tessera gemm $all --alpha nan
fails 2 '--beta: needs --c' tessera gemm $all --beta 1
fails 2 '--c: needs --beta' tessera gemm $all --c $f/c.npy
fails 2 "--dtype: 'f64' is unknown, must be f32, bf16, f16 or s8" tessera gemm $all --dtype f64
fails 2 '--bias: does not go with --dtype s8' tessera gemm $all --dtype s8 --bias $f/bias.npy
fails 2 '--activation: does not go with --dtype s8' tessera gemm $all --activation relu --dtype s8
fails 2 "--activation: 'tanh' is unknown" tessera gemm $all --activation tanh
fails 2 '--gamma: unknown option' tessera gemm $all --gamma 1
fails 2 "'more': unexpected argument" tessera gemm $all more
fails 2 '--b: needs a value' tessera gemm --a x --b
absent never.npy
finish
