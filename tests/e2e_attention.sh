# e2e_attention.sh - tessera attention on NumPy's files against PyTorch: forward, backward, packed, bad input
. "$(dirname "$0")/kit/e2e.sh"
f=$fixtures/attention
qkv="--q $f/q.npy --k $f/k.npy --v $f/v.npy"
features="--softcap 1.5 --alibi $f/alibi.npy --bias $f/bias.npy --mask $f/mask.npy --sinks $f/sinks.npy"
packed="--q $f/packed_q.npy --k $f/packed_k.npy --v $f/packed_v.npy --cu-seqlens-q $f/cu_q.npy"

for backend in cpu reference; do
    for form in '' --unfused; do
        attention="tessera attention --backend $backend $form --out out.npy --lse lse.npy"
        # result NAME TOLERANCE: what the last command wrote
        result()
        {
            close out.npy $f/$1_out.npy $2
            close lse.npy $f/$1_lse.npy $2
        }
        ok $attention $qkv
        result plain 2e-6
        ok $attention --q $f/q_fortran.npy --k $f/k.npy --v $f/v.npy
        result plain 2e-6
        ok $attention $qkv --causal --scale 0.7
        result causal 2e-6
        ok $attention $qkv --window 1,0
        result window 2e-6
        ok $attention $qkv $features
        result features 2e-6
        ok $attention $qkv --dropout 0.4 --seed 1234567890123
        result dropout 2e-6
        ok $attention $qkv --seqlens-q $f/seqlens_q.npy --seqlens-k $f/seqlens_k.npy
        result seqlens 2e-6
        ok $attention $packed --cu-seqlens-k $f/cu_k.npy --causal
        result packed 2e-6
        ok $attention $qkv --dtype bf16
        result bf16 1e-2
        ok $attention $qkv --dtype f16
        result f16 2e-3

        gradients='--dq dq.npy --dk dk.npy --dv dv.npy --dbias dbias.npy --dsinks dsinks.npy'
        ok $attention $qkv $features --dout $f/dout.npy --dlse $f/dlse.npy $gradients
        for gradient in dq dk dv dbias dsinks; do close $gradient.npy $f/want_$gradient.npy 5e-6; done

        # What the operator refuses, in the data and in the shapes.
        fails 1 'cu_seqlens_k' $attention $packed --cu-seqlens-k $f/cu_beyond.npy
        fails 1 'must not be below the one before' $attention $packed --cu-seqlens-k $f/cu_down.npy
        fails 1 'seqlens_k' $attention $qkv --seqlens-k $f/cu_q.npy
        fails 1 'k has' $attention --q $f/q.npy --k $f/v.npy --v $f/v.npy
        fails 1 'bias has shape' $attention $qkv --bias $f/q.npy
    done
done

# Keys in pages, with NaN in what is not used; in int8; packed queries over pages.
pool="--k $f/pool_k.npy --v $f/pool_v.npy"
paged="--seqlens-k $f/seqlens_all.npy --block-table $f/block_table.npy"
int8="--k $f/pool_k8.npy --v $f/pool_v8.npy --k-scale $f/pool_k_scale.npy --v-scale $f/pool_v_scale.npy"
for backend in cpu reference; do
    attention="tessera attention --backend $backend --out out.npy --lse lse.npy"
    ok $attention --q $f/q.npy $pool $paged
    result plain 2e-6
    ok $attention --q $f/q.npy $pool $paged --causal --scale 0.7
    result causal 2e-6
    ok $attention --q $f/q.npy $int8 $paged
    result int8 5e-6
    fails 1 'block_table[1, 1] is 6, must be 0 to 5' $attention --q $f/q.npy $pool \
        --seqlens-k $f/seqlens_all.npy --block-table $f/block_table_beyond.npy
    fails 2 '--unfused: not with --block-table' $attention --unfused --q $f/q.npy $pool $paged
    fails 2 '--dout: not with --block-table, which has no backward' $attention --q $f/q.npy $pool $paged \
        --dout $f/dout.npy --dq dq.npy
done
ok tessera attention --q $f/q.npy $pool $paged --out one.npy --splits 1
ok tessera attention --q $f/q.npy $pool $paged --out many.npy --splits 5
same one.npy many.npy

# One bit pattern for any number of threads.
ok tessera attention $qkv $features --out one.npy --threads 1
ok tessera attention $qkv $features --out three.npy --threads 3
same one.npy three.npy

ok tessera attention $qkv --out out.npy --lse lse.npy --json --threads 1
says '"outputs":[{"path":"out.npy","dtype":"float32","shape":[2,4,5,3]},{"path":"lse.npy","dtype":"float32","shape":[2,4,5]}]'
ok tessera attention --help
says 'usage: tessera attention --q FILE --k FILE --v FILE --out FILE [options]'

# Files that do not fit.
rm -f ./*.npy
all="tessera attention $qkv --out never.npy"
fails 1 '--mask: ' $all --mask $f/bias.npy
fails 1 'holds float32, must hold int8, int32 or int64' $all --seqlens-k $f/q.npy
fails 1 'must be -2147483648 to 2147483647' $all --seqlens-k $f/huge_lengths.npy
fails 1 '--q has 3 dimensions, must have 4' tessera attention --q $f/packed_q.npy --k $f/k.npy --v $f/v.npy --out never.npy
fails 1 '--q has 4 dimensions, must have 3' $all --cu-seqlens-q $f/cu_q.npy --cu-seqlens-k $f/cu_k.npy
fails 1 'dout' $all --dout $f/q.npy --dq dq.npy

# The command line.
fails 2 '--v: is required' tessera attention --q x --k y --out z
fails 2 '--dq: needs --dout' $all --dq dq.npy
fails 2 '--dout: needs a gradient to write' $all --dout $f/dout.npy
fails 2 '--dlse: needs --dout' $all --dlse $f/dlse.npy
fails 2 '--dbias: needs --bias' $all --dout $f/dout.npy --dbias x.npy
fails 2 '--dsinks: needs --sinks' $all --dout $f/dout.npy --dsinks x.npy
fails 2 'both or neither' $all --cu-seqlens-q $f/cu_q.npy
fails 2 'not with --cu-seqlens' $all --cu-seqlens-q $f/cu_q.npy --cu-seqlens-k $f/cu_k.npy --seqlens-k $f/seqlens_k.npy
fails 2 '--block-table: needs --seqlens-k' $all --block-table $f/block_table.npy
fails 2 '--cu-seqlens-k: not with --block-table' $all $paged --cu-seqlens-k $f/cu_k.npy
fails 2 '--k-scale and --v-scale: both or neither' $all --k-scale $f/q.npy
fails 2 '--splits: -1 is out of range' $all --splits -1
fails 2 '--unfused: not with --k-scale' $all --k-scale x --v-scale y --unfused
fails 2 '--dout: not with --k-scale, which has no backward' $all --k-scale x --v-scale y --dout $f/dout.npy --dq dq.npy
fails 1 'holds float32, must hold int8' $all --k-scale $f/q.npy --v-scale $f/q.npy
fails 2 "--window: '3' is not two whole numbers" $all --window 3
fails 2 '--window: -2 is out of range' $all --window 0,-2
fails 2 '--dropout: 1 is out of range: as a float 1, which drops all' $all --dropout 1
fails 2 'is out of range: as a float 1, which drops all' $all --dropout 0.9999999999
fails 2 '--dropout: -0.1 is out of range' $all --dropout -0.1
fails 2 '--scale: 0 makes all scores 0' $all --scale 0
fails 2 "--seed: '1.5' is not a whole number" $all --seed 1.5
fails 2 '--seed: -1 is out of range' $all --seed -1
fails 2 '--seed: 9223372036854775808 is out of range, must be 0 to 9223372036854775807' $all --seed 9223372036854775808
fails 2 '--splits: 4611686018427387905 is out of range, must be 0 to 4611686018427387904' $all --splits 4611686018427387905
fails 2 '--out: the name of the file is empty' tessera attention $qkv --out ''
fails 2 '--lse: the name of the file is empty' $all --lse ''

# Results that cannot be written, or not all of them: found out before anything is computed or written.
mkdir folder.npy
ln -s . here
for same in never.npy ./never.npy here/never.npy "$PWD/never.npy"; do
    fails 2 "--out, --lse: $same is one file, must be two" $all --lse "$same"
done
cp $f/q.npy kept.npy
ln -s kept.npy link.npy
fails 2 '--dq, --dk: link.npy is one file, must be two' $all --dout $f/dout.npy --dq kept.npy --dk link.npy
fails 1 '--lse: nowhere/lse.npy cannot be written' $all --lse nowhere/lse.npy
fails 1 '--dv: folder.npy' $all --dout $f/dout.npy --dq kept.npy --dv folder.npy
same kept.npy $f/q.npy
absent never.npy
ok tessera attention $qkv --out $'two\nlines.npy'
says 'two?lines.npy: float32'
finish
