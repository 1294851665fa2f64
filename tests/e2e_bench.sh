# e2e_bench.sh - tessera bench gemm: its rows as JSON, its peers, and what it refuses
. "$(dirname "$0")/kit/e2e.sh"
bench="tessera bench gemm --seconds 0.001"
shape="--m 24 --n 40 --k 56"

# row WORDS: keeps, as stdout, the first line of the last --json run that holds them.
row()
{
    n_checks=$((n_checks + 1))
    grep -F -- "$1" rows | head -n 1 >stdout
    [ -s stdout ] || failed "there is no row with $1: $(cat rows stderr)" row "$@"
}

ok tessera bench gemm --help
for word in --set --cache --dtype --batch --heads --peer --no-peers --seconds --threads --backend --json; do
    says "  $word"
done

# Every line of --json is an object, and a row has all its fields.
ok $bench $shape --no-peers --threads 2 --json
cp stdout rows
while read -r line; do
    echo "$line" >line
    check 'is no JSON object' "$json_get" line op >/dev/null
done <rows
row '"floor":"f32","isa"'
for key in gflops_one gflops_one_median gflops_one_least gflops_all gflops_all_median gflops_all_least; do
    check "has no $key" "$json_get" stdout $key >/dev/null
done
row '"floor":"read","isa"'
has threads 2
row '"cache":"warm"'
has op '"gemm"'
has dtype '"f32"'
has m 24
has n 40
has k 56
has batch 1
has heads 1
has form '"matmul"'
has b '"plain"'
has threads 2
has floor '"f32"'
for key in kernel ms ms_least ms_most rounds gflops gbytes_per_s floor_peak share peers; do
    check "has no $key" "$json_get" stdout $key >/dev/null
done
row '"cache":"cold"'

# A batch stands in each of its forms.
ok $bench $shape --batch 2 --heads 3 --dtype bf16 --cache warm --no-peers --json
cp stdout rows
for form in loop bmm strided pointers scattered; do
    row "\"form\":\"$form\""
    has dtype '"bf16"'
    has heads 3
done

# The table, and peers where this machine has them: each takes part, and computes the same.
ok $bench $shape --cache warm
says 'matmul m 24 n 40 k 56'
for peer in openblas blis mkl onednn; do
    if grep -q "^peer $peer: not used" stderr; then
        echo "not checked: $peer is not here"
        continue
    fi
    says "  $peer "
done

fails 2 "tessera bench gemm: --set: 'round' is unknown, must be llm, square, batched or small" $bench --set round
fails 2 "--dtype: 'f8' is unknown, must be f32, bf16, f16 or s8" $bench $shape --dtype f8
fails 2 "--cache: 'hot' is unknown, must be both, warm or cold" $bench $shape --cache hot
fails 2 '--m: 0 is out of range' $bench --m 0 --n 1 --k 1
fails 2 '--m, --n, --k: all three make a shape' $bench --m 4 --n 4
fails 2 '--m, --n, --k: all three make a shape' $bench --batch 4
fails 2 '--set: does not go with --m, --n, --k' $bench $shape --set small
fails 2 "--peer: 'libfoo.so' is not name=path" $bench $shape --no-peers --peer libfoo.so
fails 2 "--peer: 'atlas=/tmp' is not name=path" $bench $shape --no-peers --peer atlas=/tmp
fails 1 '--peer mkl: missing.so: No such file' $bench $shape --no-peers --peer mkl=missing.so
echo 'no library' >text.so
fails 1 '--peer openblas-new: ./text.so: cannot be loaded' $bench $shape --no-peers --peer openblas-new=./text.so
fails 1 '--peer onednn: ./text.so: cannot be loaded' $bench $shape --no-peers --peer=onednn=./text.so
fails 2 "tessera bench gemm: 'x': unexpected argument" tessera bench gemm x
fails 2 '--set: must come after gemm' tessera bench --set llm gemm
finish
