# e2e_generate.sh - tessera generate as a person uses it: streams, seeds, JSON, logits, what is refused
. "$(dirname "$0")/kit/e2e.sh"

head -c 40000 $fixtures/../../../data/news_from_nowhere.txt >book
ok tessera train --data book --out model --steps 40 --lr 0.01 --evaluations 1 --vocab 300 --dim 32 --layers 2 --heads 4 \
    --kv-heads 2 --ffn 64 --context 32 --batch 4

ok tessera generate model -p 'It was a ' -n 40
check 'must begin with the prompt' grep -q '^It was a ' stdout
says 'prompt ' stderr
says 'generated 40' stderr
says 'peak memory' stderr
says 'threads' stderr
says 'backend cpu: gemm_f32' stderr
cp stdout text

# A seed is a text, on any number of threads.
for threads in 1 2 3; do
    ok tessera generate model --tokens=40 --prompt='It was a ' --seed 0 --threads $threads
    same stdout text
done
ok tessera generate model -p 'It was a ' -n 40 --seed 1
check 'another seed must give another text' [ "$(cmp -s stdout text && echo same)" = '' ]
ok tessera generate model -p 'It was a ' -n 40 --temperature 0 --seed 1
cp stdout text
ok tessera generate model -p 'It was a ' -n 40 --top-k 1 --seed 2
same stdout text
ok tessera generate model -p 'It was a ' -n 40 --top-p 1e-9 --seed 3
same stdout text
ok tessera generate model -p 'It was a ' -n 40 --min-p 1 --seed 4
same stdout text

# The text comes token by token: a reader that has enough ends it, long before its last one.
n_checks=$((n_checks + 1))
[ "$(timeout 60 "$program" generate model -p 'It' -n 1000000000 2>stderr | head -c 300 | wc -c)" = 300 ] ||
    failed 'the text does not stream' 'generate -n 1000000000 | head -c 300'

# Figures as JSON, valid whatever bytes the model wrote; ids of prompt and text.
for dtype in f32 bf16 f16; do
    ok tessera generate model -p $'a "quoted\\\n line, caf\xc3\xa9' -n 60 --temperature 3 --json --dtype $dtype
    has tokens 60
    has backend '"cpu"'
    check 'must say as many ids' [ "$("$json_get" stdout ids | tr ',' '\n' | wc -l)" = 60 ]
    check 'must have one line' [ "$(wc -l <stdout)" = 1 ]
done
ok tessera generate model -p '' -n 0 --json
has prompt_ids '[0]'
has text '""'

# Logits of what follows the prompt: the same from every thread, close from the reference.
ok tessera generate model -p 'It was' -n 0 --logits logits.npy
ok tessera generate model -p 'It was' -n 0 --logits again.npy --threads 3
same again.npy logits.npy
ok tessera generate model -p 'It was' -n 0 --logits again.npy --backend reference
close again.npy logits.npy 1e-4
fails 1 'no/logits.npy' tessera generate model -p 'It was' -n 0 --json --logits no/logits.npy

# Longer than the model looks back, a prompt is refused; a text goes on.
ok tessera generate model -p 'It was' -n 100
fails 1 'tokens, the model reads at most 32' tessera generate model -p "$(head -c 300 book)"

# A model that claims to read ten million times as much costs no more.
cp -r model far
sed 's/"max_position_embeddings": *32/"max_position_embeddings": 320000000/' model/config.json >far/config.json
ok tessera generate far -p 'It was' -n 100
rm -r far

# Models that are none.
fails 1 'nowhere/config.json cannot be opened' tessera generate nowhere -p x
fails 1 'book: not a directory' tessera generate book -p x
without()
{
    rm -rf broken
    cp -r model broken
    rm "broken/$1"
}
for file in config.json tokenizer.json; do
    without $file
    fails 1 "broken/$file cannot be opened" tessera generate broken -p x
done
without model.safetensors
fails 1 'broken holds neither' tessera generate broken -p x
head -c 20000 model/model.safetensors >broken/model.safetensors
fails 1 'broken/model.safetensors' tessera generate broken -p x
head -c 5 model/model.safetensors >broken/model.safetensors
fails 1 'too few for a safetensors file' tessera generate broken -p x
rm broken/model.safetensors
mkfifo broken/model.safetensors
fails 1 'is a FIFO' tessera generate broken -p x
without config.json
sed 's/"num_hidden_layers": *2/"num_hidden_layers": 3/' model/config.json >broken/config.json
fails 1 "tensor 'model.layers.2.input_layernorm.weight' is missing" tessera generate broken -p x
sed 's/"hidden_act": *"silu"/"hidden_act": "gelu"/' model/config.json >broken/config.json
fails 1 "hidden_act is 'gelu', must be 'silu'" tessera generate broken -p x

# Command lines that are none.
fails 2 'an argument is missing' tessera generate -p x
fails 2 '--prompt: is required' tessera generate model
fails 2 "'b': unexpected argument" tessera generate model b -p x
fails 2 '--tokens: -1 is out of range' tessera generate model -p x -n -1
fails 2 '--temperature: -1 is out of range' tessera generate model -p x --temperature -1
fails 2 '--top-p: 1.5 is out of range' tessera generate model -p x --top-p 1.5
fails 2 '--min-p: nan is out of range' tessera generate model -p x --min-p nan
fails 2 "--top-k: 'x' is not a whole number" tessera generate model -p x --top-k x
fails 2 "--dtype: 'int4' is unknown" tessera generate model -p x --dtype int4
fails 2 "--backend: 'abacus' is not in this build" tessera generate model -p x --backend abacus

n_checks=$((n_checks + 1))
tessera generate model -p x -n 5 >/dev/full 2>stderr
[ $? = 1 ] && grep -q 'No space left' stderr || failed 'must fail with a message' 'tessera generate >/dev/full'
finish
