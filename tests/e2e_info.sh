# e2e_info.sh - tessera info: this machine; files of tensors; folders that are models, or nearly
. "$(dirname "$0")/kit/e2e.sh"
format=fixtures/format

ok tessera info
says 'instruction sets'
says 'used'
says 'gemm_f32'
ok tessera info --json
says '"instruction_sets":[{"name":"portable","available":true'
ok env TESSERA_ISA=portable "$program" info
grep -qE '^  portable +used$' stdout || failed "$(cat stdout)" 'TESSERA_ISA=portable tessera info'
fails 1 "TESSERA_ISA is 'nonsense'" env TESSERA_ISA=nonsense "$program" info
ok tessera info --backend reference --threads 1
says 'plain loops'

ok tessera info $format/every_dtype.safetensors
says 'parameters'
ok tessera info $format/every_dtype.safetensors --json
says '"tensors":[{"name":'
ok tessera info $format/sharded/model.safetensors.index.json

# A model as training writes it, then the same with one thing wrong at a time.
for i in $(seq 400); do echo "line $i of a text that is long enough to learn from, and no longer"; done >text
ok tessera train --data text --out model --steps 1 --vocab 300 --dim 16 --layers 1 --heads 2 --kv-heads 1 --ffn 24 \
    --context 16 --batch 2 --evaluations 1
ok tessera info model
says 'LlamaForCausalLM, stored in f32'
says '  vocabulary     300, of which the tokenizer has 300'
ok tessera info model --json
says '"architecture":"LlamaForCausalLM","layers":1,"hidden_size":16,"heads":2,"kv_heads":1'
without()
{
    rm -rf broken
    cp -r model broken
    rm "broken/$1"
}
for file in config.json tokenizer.json model.safetensors; do
    without $file
    fails 1 'broken' tessera info broken
done
without config.json
sed 's/"num_hidden_layers": *1/"num_hidden_layers": 2/' model/config.json >broken/config.json
fails 1 'model.layers.1.' tessera info broken
without config.json
sed 's/"vocab_size": *300/"vocab_size": 299/' model/config.json >broken/config.json
fails 1 'model.embed_tokens.weight' tessera info broken
fails 1 'config.json' tessera info $format/sharded

fails 1 'nowhere' tessera info nowhere
fails 2 "'two': unexpected argument" tessera info one two
head -c 50 $format/every_dtype.safetensors >cut.safetensors
fails 1 'cut.safetensors' tessera info cut.safetensors
finish
