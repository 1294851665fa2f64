# e2e_train.sh - tessera train as a person uses it: a run, Ctrl-C and --resume, the plot, what is refused
. "$(dirname "$0")/kit/e2e.sh"

data=/usr/share/common-licenses
[ -d $data ] || data=$fixtures/../../../data/news_from_nowhere.txt
head -c 40000 $fixtures/../../../data/news_from_nowhere.txt >book
tiny='--vocab 300 --dim 32 --layers 2 --heads 4 --kv-heads 2 --ffn 64 --context 32 --batch 2'

# A run, what it says, and what it leaves.
ok tessera train --data $data --out model --steps 24 --evaluations 3 $tiny --plot loss.svg
says 'done after step 24 of 24'
says 'held-out bits per byte'
says 'activations'\'' peak'
says 'tokens to learn from' stderr
says 'step 8/24  loss' stderr
says 's left' stderr
check 'these files must be there' \
    [ "$(cd model && echo *)" = 'checkpoint.safetensors config.json model.safetensors tokenizer.json tokenizer_config.json' ]
ok tessera info model
says 'parameters'
says 'LlamaForCausalLM, stored in f32'

# The picture: two curves with a point for each of the three evaluations.
check 'must begin as an SVG' grep -q "^<svg xmlns='http://www.w3.org/2000/svg' width=" loss.svg
check 'must end as an SVG' [ "$(tail -n 1 loss.svg)" = '</svg>' ]
check 'must have two curves of three points' \
    [ "$(grep -cE "<polyline [^<>]* points='([0-9.]+,[0-9.]+ ){3}'/>" loss.svg)" = 2 ]
check 'must have no number that is none' [ "$(grep -ciE 'nan|inf' loss.svg)" = 0 ]

ok tessera train --data book --out json --steps 3 --evaluations 1 $tiny --json
has finished true
has steps 3
has n_steps 3
has best_step 3
check 'must have printed one line' [ "$(wc -l <stdout)" = 1 ]

# The same again, on other threads and by the clock's --minutes.
ok tessera train --data $data --out again --steps 24 --evaluations 3 $tiny --threads 3
same again/model.safetensors model/model.safetensors
ok tessera train --data book --out timed --minutes 0.01 --evaluations 2 $tiny --dtype bf16
says 'step 1  loss' stderr
says 'done after step'
ok tessera info timed
says 'stored in bf16'

# interrupt OUT OPTIONS...: Ctrl-C once the first line of progress is there.
interrupt()
{
    : >progress
    "$program" train --out "$1" "${@:2}" >stdout 2>progress &
    local pid=$!
    while ! grep -q '^step' progress && kill -0 $pid 2>/dev/null; do sleep 0.02; done
    kill -INT $pid
    wait $pid
    check 'Ctrl-C ends a run in good order' [ $? = 0 ]
    says 'stopped after step'
    says "go on with: tessera train --resume --data 'book' --out '$1'"
}
long="--data book --steps 150 --evaluations 3 $tiny"
ok tessera train --out unbroken $long
interrupt broken $long
fails 1 'holds a model already (checkpoint.safetensors)' tessera train --out broken $long
ok tessera train --data book --out broken --resume
says 'done after step 150 of 150'
for file in model checkpoint; do same broken/$file.safetensors unbroken/$file.safetensors; done
interrupt broken $long --overwrite
ok tessera train --resume --out broken $long --plot resumed.svg # the same settings again, as one types them
for file in model checkpoint; do same broken/$file.safetensors unbroken/$file.safetensors; done
ok tessera train --resume --out broken --data book --json
has finished true
has steps 150

# What a resumed run cannot be.
fails 2 '--steps is 151, the run in broken has 150' tessera train --data book --out broken --resume --steps 151
fails 2 '--lr is 0.5' tessera train --data book --out broken --resume --lr 0.5
fails 2 '--dtype: the run in broken has f32' tessera train --data book --out broken --resume --dtype bf16
fails 2 '--overwrite: cannot go with --resume' tessera train --data book --out broken --resume --overwrite
fails 1 'not the text that the run in broken learned from' tessera train --data $data --out broken --resume
fails 1 'nowhere/checkpoint.safetensors cannot be opened' tessera train --data book --out nowhere --resume
head -c 5000 unbroken/checkpoint.safetensors >broken/checkpoint.safetensors
fails 1 'checkpoint.safetensors' tessera train --data book --out broken --resume
same broken/model.safetensors unbroken/model.safetensors

# Text that is none.
: >nothing
mkfifo pipe
mkdir empty
fails 1 'nothing: there is no text in it' tessera train --data nothing --out refused
fails 1 'empty: there is no text in it' tessera train --data empty --out refused
fails 1 'nowhere: No such file or directory' tessera train --data nowhere --out refused
fails 1 'pipe is a FIFO' tessera train --data pipe --out refused
fails 1 '/dev/null is a device' tessera train --data /dev/null --out refused
head -c 300 book >few
fails 1 'one context needs 257; give more text' tessera train --data few --out refused
head -c 15 book >few
fails 1 'data: 15 bytes' tessera train --data few --out refused --context 2

# Places that are none.
fails 1 'book: not a directory' tessera train --data book --out book
fails 1 'no/parent: No such file or directory' tessera train --data book --out no/parent $tiny
fails 1 'book/inside: Not a directory' tessera train --data book --out book/inside $tiny
fails 1 'no/loss.svg' tessera train --data book --out refused --plot no/loss.svg
if [ "$(id -u)" != 0 ]; then
    mkdir -m 555 locked
    fails 1 'locked: Permission denied' tessera train --data book --out locked
fi

# Command lines that are none.
fails 2 '--data: is required' tessera train --out refused
fails 2 '--out: is required' tessera train --data book
fails 2 '--steps: cannot go with --minutes' tessera train --data book --out refused --steps 5 --minutes 1
fails 2 '--steps: 0 is out of range' tessera train --data book --out refused --steps 0
fails 2 '--vocab: 256 is out of range, must be 257' tessera train --data book --out refused --vocab 256
fails 2 "--minutes: 'soon' is not a number" tessera train --data book --out refused --minutes soon
fails 2 "--dtype: 'f64' is unknown" tessera train --data book --out refused --dtype f64
fails 2 'dim is 30, must be an even multiple of heads, 4' tessera train --data book --out refused --dim 30 --heads 4
fails 2 'heads is 6, must be a multiple of kv-heads, 4' tessera train --data book --out refused --kv-heads 4
fails 2 '--dropout: 1 is out of range' tessera train --data book --out refused --dropout 1
fails 2 '--nonsense: unknown option' tessera train --data book --out refused --nonsense
absent refused

# A disk that fills up (files of 64 KiB at most): an error, and the model that was there stays.
cp -r unbroken kept
(ulimit -f 64 && tessera train --data book --out kept --resume >stdout 2>stderr) # finished: writes nothing
check 'must not fail' [ $? = 0 ]
(ulimit -f 64 && tessera train --out full $long >stdout 2>stderr)
check 'a full disk is exit status 1' [ $? = 1 ]
check 'must say so in its last line' \
    [ "$(tail -n 1 stderr)" = 'tessera train: full/model.safetensors cannot be written: File too large' ]
absent model.safetensors.tessera-tmp
(ulimit -f 4 && tessera train --out kept --overwrite $long >stdout 2>stderr)
check 'a full disk is exit status 1' [ $? = 1 ]
for file in model checkpoint; do same kept/$file.safetensors unbroken/$file.safetensors; done
same kept/tokenizer.json unbroken/tokenizer.json

# A log that nobody reads does not end a run.
n_checks=$((n_checks + 1))
"$program" train --out unread $long 2> >(head -n 1 >/dev/null) >stdout || failed 'the run ended early' 'train 2> >(head -n 1)'
same unread/model.safetensors unbroken/model.safetensors

ok tessera train --help
says 'tessera train --data /usr/share/common-licenses --out licences --minutes 2'
finish
