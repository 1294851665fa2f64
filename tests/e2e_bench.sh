# e2e_bench.sh - tessera bench gemm, attention, softmax: rows as JSON, peers, the picture, what is refused
. "$(dirname "$0")/kit/e2e.sh"
bench="tessera bench gemm --seconds 0.001"
attention="tessera bench attention --seconds 0.001"
shape="--m 24 --n 40 --k 56"

# row WORDS: keeps, as stdout, the first line of the last --json run that holds them.
row()
{
    n_checks=$((n_checks + 1))
    grep -F -- "$1" rows | head -n 1 >stdout
    [ -s stdout ] || failed "there is no row with $1: $(cat rows stderr)" row "$@"
}

# rows_are_objects: each line that the last --json run printed is one; they stay in the file `rows`.
rows_are_objects()
{
    cp stdout rows
    while read -r line; do
        echo "$line" >line
        check 'is no JSON object' "$json_get" line op >/dev/null
    done <rows
}

# has_keys KEY...: the row that was kept has them.
has_keys()
{
    for key in "$@"; do
        check "has no $key" "$json_get" stdout "$key" >/dev/null
    done
}

ok tessera bench gemm --help
for word in --set --cache --dtype --batch --heads --peer --no-peers --seconds --threads --backend --json; do
    says "  $word"
done

# Every line of --json is an object, and a row has all its fields.
ok $bench $shape --no-peers --threads 2 --json
rows_are_objects
row '"floor":"f32","isa"'
has_keys gflops_one gflops_one_median gflops_one_least gflops_all gflops_all_median gflops_all_least
row '"floor":"exp","isa"'
has_keys gexp_per_s_one gexp_per_s_all
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
has_keys kernel ms ms_least ms_most rounds gflops gbytes_per_s floor_peak share peers
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
# A path is that file: not one of its name that the loader knows, nor what stands around a ':' in it.
mkdir -p 'a:libutil.so.1:b'
for path in libutil.so.1 'a:libutil.so.1' 'libutil.so.1:b' 'a:libutil.so.1:b/text.so'; do
    echo 'no library' >"$path"
    fails 1 "--peer openblas: $path: cannot be loaded" $bench $shape --no-peers --peer "openblas=$path"
done
fails 2 '--peer mkl: its path is empty' $bench $shape --no-peers --peer mkl=
fails 2 "tessera bench gemm: 'x': unexpected argument" tessera bench gemm x
fails 2 'gemm: must come first, its options after it' tessera bench --json gemm

# measures_nothing COMMAND...: exits 1 after a reason for each row.
measures_nothing()
{
    "$@" >stdout 2>stderr
    local status=$?
    check "exit status is $status, must be 1: $(cat stderr)" [ $status = 1 ]
    says 'left out: ' stderr
    says ': nothing could be measured' stderr
}
measures_nothing $bench --m 1048576 --n 1048576 --k 1048576 --no-peers

# --- attention ---
shape="--lk 48 --d 24"
ok tessera bench attention --help
for word in --set --svg --pass --lk --d --dv --lq --batch --heads --kv-heads --dtype --causal --dropout --kv-dtype \
    --page --peer --no-peers --seconds --threads --backend --json; do
    says "  $word"
done

# Forward and backward, a row each, with all the fields; the unfused path beside them.
ok $attention $shape --batch 2 --heads 4 --kv-heads 2 --lq 33 --dv 40 --causal --dropout 0.25 --dtype bf16 --no-peers \
    --threads 2 --json
rows_are_objects
for pass in forward backward; do
    row "\"pass\":\"$pass\""
    has op '"attention"'
    has dtype '"bf16"'
    has b 2
    has hq 4
    has hkv 2
    has lq 33
    has lk 48
    has d 24
    has dv 40
    has causal true
    has dropout 0.25
    has threads 2
    has_keys kernel ms ms_least ms_most rounds gflops gbytes_per_s floor floor_peak share share_f32 floor_multiply_ms \
        floor_exp_ms floor_read_ms workspace_nbytes peak_rss_nbytes unfused_workspace_nbytes \
        unfused_peak_rss_nbytes peers
    has floor_read_ms 0.0 # all stays in cache
    check 'has no unfused time' grep -q '"peers":{"unfused":[0-9.]*}' stdout
    check 'does not say what unfused is' grep -q '"peers_call":{"unfused":"tsr_attention_unfused_[fb]wd"}' stdout
done

# Operations are counted as 4 B Hq L L D, 2.5 times that backward: the floors say so.
ok $attention --lk 512 --d 32 --no-peers --json
rows_are_objects
row '"pass":"forward"'
full=$("$json_get" stdout floor_exp_ms) forward=$("$json_get" stdout floor_multiply_ms) peak=$("$json_get" stdout floor_peak)
check "multiplies for $forward ms at $peak GFLOP/s" awk "BEGIN { exit !(($forward * $peak / 268.435456) ^ 2 < 1.02) }"
check "multiplies for $forward ms at $peak GFLOP/s" awk "BEGIN { exit !(($forward * $peak / 268.435456) ^ 2 > 0.98) }"
check "has exponentials for $full ms" awk "BEGIN { exit !($full > 0 && $full < $forward) }"

# One pass alone; decoding, with int8 and with pages, which the unfused path does not have.
ok $attention $shape --pass backward --no-peers --json
rows_are_objects
row '"pass":"backward"'
check 'printed another pass' [ "$(grep -c '"op":"attention"' rows)" = 1 ]
ok $attention $shape --pass decode --heads 4 --kv-heads 1 --no-peers --json
rows_are_objects
row '"pass":"decode"'
has lq 1
has kv_dtype '"f32"'
ok $attention $shape --pass decode --lq 3 --kv-dtype s8 --page 16 --no-peers --json
rows_are_objects
row '"pass":"decode"'
has lq 3
has kv_dtype '"s8"'
has page 16
has peers '{}'
says 'kv s8 page 16: not unfused: pages' stderr

# The table, and peers where this machine has them: each computes the same.
ok $attention $shape --kv-heads 4 --causal
says 'forward f32 B1 H8/4 L48 D24 causal'
says 'floors: products'
says 'reading in cache; workspace'
for peer in openblas blis mkl; do
    if grep -q "^peer $peer: not used" stderr; then
        echo "not checked: $peer is not here"
    else
        says "  $peer "
        check "computes attention otherwise: $(cat stderr)" [ "$(grep -c "peer $peer: left out" stderr)" = 0 ]
    fi
done
if python3 -c 'import torch' 2>/dev/null; then
    ok $attention $shape --kv-heads 4 --no-peers --peer torch=python3
    check "is not in both rows: $(cat stdout stderr)" [ "$(grep -c '  torch ' stdout)" = 2 ]
else
    echo "not checked: no PyTorch in python3"
fi
if command -v python3 >/dev/null; then
    mkdir -p broken/torch
    echo 'raise ImportError("it is broken")' >broken/torch/__init__.py
    fails 1 '--peer torch: python3: python3' env PYTHONPATH=broken "$program" bench attention $shape --no-peers \
        --peer torch=python3
    says 'has no torch: it is broken' stderr
fi

# The picture: whole, and readable by what reads XML.
ok $attention --svg scaling.svg --d 16 --heads 2 --json
check 'is no picture' grep -q '^<svg .*>$' scaling.svg
says '</svg>' scaling.svg
for word in unfused 'floor: this machine' 'ms</text>' 'MiB</text>' 'queries and keys' '>128<' '>256<'; do
    says "$word" scaling.svg
done
rows_are_objects
row '"lk":256'
check "does not say where it ends: $(cat stderr)" grep -q -- \
    '--svg: ends at L [0-9]*: at [0-9]* a call would take longer than 0.0035 s (--seconds shortens that)' stderr
check "gives another reason than time: $(cat stderr)" [ "$(grep -c 'its workspace would take' stderr)" = 0 ]

fails 2 "--set: 'round' is unknown, must be long, short, single, diffusion or decode" $attention --set round
fails 2 '--lk, --d: both make a shape' $attention --lk 4
fails 2 '--lk, --d: both make a shape' $attention --causal
fails 2 '--set: does not go with the options of one shape' $attention --set long --causal
fails 2 "--pass: 'up' is unknown, must be both, forward, backward or decode" $attention $shape --pass up
fails 2 '--heads: 3 is no multiple of --kv-heads 2' $attention $shape --heads 3 --kv-heads 2
fails 2 '--lq: 17 queries, decoding has 1 to 16' $attention $shape --pass decode --lq 17
fails 2 '--page: goes with --pass decode' $attention $shape --page 4
fails 2 '--kv-dtype: goes with --pass decode' $attention $shape --kv-dtype s8
fails 2 '--kv-dtype: must be s8, or what --dtype is' $attention $shape --pass decode --kv-dtype f16
fails 2 '--dropout: 1 is out of range' $attention $shape --dropout 1
fails 2 '--svg: goes with the lengths that it chooses' $attention $shape --svg x.svg
fails 2 '--svg: goes with --pass forward or backward' $attention --svg x.svg --pass decode
measures_nothing $attention --lk 16777216 --d 4096 --heads 4096 --no-peers
fails 2 'tessera bench attention: --svg: the name of the file is empty' $attention --svg ''
fails 1 '--svg: missing/x.svg cannot be written: No such file' $attention --svg missing/x.svg
absent x.svg
fails 2 "--peer: 'onednn=x' is not name=path with a name that begins with openblas, blis, mkl or torch" \
    $attention $shape --peer onednn=x
fails 2 '--peer torch: its path is empty' $attention $shape --no-peers --peer torch=
fails 2 "--peer: 'torch=x' is not name=path" $bench --m 1 --n 1 --k 1 --peer torch=x
fails 1 '--peer torch: ./missing: No such file' $attention $shape --no-peers --peer torch=./missing
fails 1 '--peer torch: missing-python: it cannot be started' $attention $shape --no-peers --peer torch=missing-python
fails 1 '--peer torch: /bin/true: it is no Python' $attention $shape --no-peers --peer torch=/bin/true
fails 2 "tessera bench attention: 'x': unexpected argument" $attention x
fails 2 'attention: must come first, its options after it' tessera bench --json attention
fails 2 "'round' is no benchmark, must be machine, gemm, attention, softmax or train" tessera bench round

# Text to train on is looked for before anything is measured.
echo hi >short.txt
for what in '' train; do
    fails 1 'tessera bench: --data: ./missing: No such file' tessera bench $what --data ./missing
    fails 1 'bytes to learn from, must be 257 or more' tessera bench $what --data ./short.txt
done

# --- softmax ---
ok tessera bench softmax --seconds 0.001 --threads 2 --json
rows_are_objects
for form in 'three passes' 'two passes' 'one pass'; do
    row "\"form\":\"$form\""
    has op '"softmax"'
    has n 64
    has_keys kernel ms gbytes_per_s floor share floor_exp_ms floor_read_ms
done
finish
