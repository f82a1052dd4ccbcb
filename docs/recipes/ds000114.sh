#!/bin/sh
# Test and retest (ds000114): who is this?
#
# Data      Ten adults, each scanned in two sessions (test, retest) with the same five tasks.
# Source    https://github.com/OpenNeuroDerivatives/ds000114-fmriprep (with DataLad, no account)
# Question  Is a person's run of one session found among one run of everybody from the other?
# Expect    OUTPUT/group/reidentification.tsv (rank 1, rank 5, mean average precision, each beside
#           what chance gives) and OUTPUT/group.html. With ten people, chance is 0.1 at rank 1.
# Mind      An embedding may know somebody by the shape of the head. Ten people say little about a
#           thousand: chances, and so scores, depend on how many there are.
#
# Not run on the real data here; tests run it on a small synthetic cohort.
#
# Usage: docs/recipes/ds000114.sh DATASET OUTPUT
set -eu
dataset=$1
output=$2

MODEL=${MODEL:-neurostorm-mae-5ds}
SEED=${SEED:-0}
DEVICE=${DEVICE:-auto}

neurostorm "$dataset" "$output" participant --model "$MODEL" --device "$DEVICE"
neurostorm "$dataset" "$output" group --random-seed "$SEED"
