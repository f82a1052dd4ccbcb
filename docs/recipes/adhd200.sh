#!/bin/sh
# ADHD-200: random against region-aware pretraining, then diagnosis in the same splits.
#
# Data      ADHD-200, resting state of 973 children and adolescents at eight sites, preprocessed
#           with fMRIPrep. DATASET is the raw dataset with derivatives/fmriprep, or that folder.
#           participants.tsv needs a column of two classes, called diagnosis here, and one of the
#           site. The phenotypic tables code DX as 0 for controls and 1, 2, 3 for types of ADHD:
#           put control and adhd there, and n/a for those whose diagnosis was withheld.
# Source    https://fcon_1000.projects.nitrc.org/indi/adhd200/
# Question  Does an encoder that learns to reconstruct whole brain regions tell the diagnosis
#           better than one that reconstructs random places? (Doodipala et al., arXiv 2511.00443)
# Expect    OUTPUT/random and OUTPUT/regions, each with pretrain.html and finetune.html, and
#           OUTPUT/compare.tsv: regions minus random for each measure, with its 95 % interval and
#           the p-value of a paired test over participants. The paper reports 4.23 % more accuracy.
# Mind      Both encoders see all participants in pretraining, without their diagnoses. One seed of
#           each says nothing about how much seeds differ: repeat with SEED=1, 2, ...
#
# Not run on the real data here; tests run it on a small synthetic cohort.
#
# Usage: docs/recipes/adhd200.sh DATASET OUTPUT
set -eu
dataset=$1
output=$2

PRESET=${PRESET:-base}     # network and grid
STEPS=${STEPS:-20000}      # updates of each pretraining
BATCH=${BATCH:-8}          # clips per update
RATIO=${RATIO:-0.5}        # share that is masked, the same for both
ATLAS=${ATLAS:-AAL3}       # regions
TARGET=${TARGET:-diagnosis}
SITE=${SITE:-site}
FOLDS=${FOLDS:-5}
SEED=${SEED:-0}
DEVICE=${DEVICE:-auto}

pretrain() {  # folder, mask, further options
    folder=$1 mask=$2
    shift 2
    neurostorm "$dataset" "$output/$folder" pretrain -w "$output/work" --task-id rest \
        --preset "$PRESET" --mask "$mask" --mask-ratio "$RATIO" --max-steps "$STEPS" \
        --batch-size "$BATCH" --random-seed "$SEED" --device "$DEVICE" "$@"
}

finetune() {  # folder, mask, further options
    folder=$1 mask=$2
    shift 2
    neurostorm "$dataset" "$output/$folder" finetune -w "$output/work" --task-id rest \
        --model "$output/$folder/models/${PRESET}_mae_$mask" --target "$TARGET" \
        --site-column "$SITE" --atlas "$ATLAS" --random-seed "$SEED" --device "$DEVICE" "$@"
}

pretrain random random/random
pretrain regions atlas/random --atlas "$ATLAS"

finetune random random-random --n-folds "$FOLDS"
finetune regions atlas-random --splits "$output/random/finetune/${TARGET}_linear/split.tsv"

neurostorm-model compare "$output/regions/finetune/${TARGET}_linear" \
    "$output/random/finetune/${TARGET}_linear" >"$output/compare.tsv"
cat "$output/compare.tsv"
