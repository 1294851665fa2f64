#!/bin/sh
# run.sh - the main job, as `make run` starts it: a model learns from text, then writes some
#
#   tools/run.sh PROGRAM DIRECTORY MINUTES [TEXT]
#
# TEXT is a file or folder; by default the licence texts that Debian and Ubuntu install on every
# machine, elsewhere the book in data/. The commands are shown as one would type them.
set -eu

program=$1 directory=$2 minutes=$3 text=${4:-}
if [ -z "$text" ]; then
    text=/usr/share/common-licenses prompt='This License'
    [ -d "$text" ] || text=$(dirname "$0")/../data/news_from_nowhere.txt prompt='"Well," said he,'
else
    prompt='The'
fi

mkdir -p "$directory"
echo "\$ $program train --data '$text' --out $directory/model --minutes $minutes --overwrite --plot $directory/loss.svg" >&2
"$program" train --data "$text" --out "$directory/model" --minutes "$minutes" --overwrite --plot "$directory/loss.svg"
echo >&2
echo "\$ $program generate $directory/model -p '$prompt' -n 200" >&2
"$program" generate "$directory/model" -p "$prompt" -n 200
