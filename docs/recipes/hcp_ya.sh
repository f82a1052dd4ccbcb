#!/bin/sh
# HCP Young Adult: age and sex from rest.
#
# Data      About 1,100 adults of 22 to 37 years, many of them twins and siblings, preprocessed
#           with fMRIPrep. participants.tsv needs the columns Gender, Age_in_Yrs and Family_ID; the
#           last two are in the restricted table.
# Source    https://www.humanconnectome.org/study/hcp-young-adult (an account, and its terms)
# Question  How well do embeddings of a frozen model tell age and sex, beside functional
#           connectivity and confounds in the same folds?
# Expect    OUTPUT/finetune/Gender_linear and OUTPUT/finetune/Age-in-Yrs_linear with scores.json
#           and finetune.html; the models in OUTPUT/models go into the level participant.
# Mind      Families stay on one side of every split. The published encoder was itself pretrained
#           on data of the Human Connectome Project, without these labels: scores here say less
#           about new people than scores on a dataset that it never saw.
#
# Not run on the real data here; tests run it on a small synthetic cohort.
#
# Usage: docs/recipes/hcp_ya.sh DATASET OUTPUT
set -eu
dataset=$1
output=$2

MODEL=${MODEL:-neurostorm-mae-5ds}
TARGETS=${TARGETS:-Gender Age_in_Yrs}
FAMILY=${FAMILY:-Family_ID}
FOLDS=${FOLDS:-5}
ATLAS=${ATLAS:-Schaefer2018:200}
SEED=${SEED:-0}
DEVICE=${DEVICE:-auto}

for target in $TARGETS; do
    neurostorm "$dataset" "$output" finetune --task-id rest --model "$MODEL" --target "$target" \
        --group-column "$FAMILY" --n-folds "$FOLDS" --atlas "$ATLAS" --random-seed "$SEED" \
        --device "$DEVICE"
done
