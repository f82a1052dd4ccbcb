#!/bin/sh
# UCLA Consortium for Neuropsychiatric Phenomics (ds000030): diagnosis from rest.
#
# Data      272 adults: controls, schizophrenia, bipolar disorder, ADHD. DATASET is the folder that
#           has participants.tsv and derivatives/fmriprep.
# Source    s3://openneuro/ds000030/ds000030_R1.0.5/uncompressed (no account needed). Of
#           derivatives/fmriprep the files *_task-rest_bold_*MNI152NLin2009cAsym_{preproc,brainmask}*
#           and *_task-rest_bold_confounds.tsv are enough.
# Question  Is the diagnosis found in the embeddings of a frozen model, and better than in
#           functional connectivity, or in confounds such as head motion alone?
# Expect    OUTPUT/finetune.html: scores of the model and of the baselines in the same folds, with
#           confusions. Groups differ in size and in motion: look at the balanced accuracy, and at
#           what confounds alone reach.
# Mind      These derivatives were made before BIDS had names for them. If DATASET has the old
#           names, links with today's are made in OUTPUT/renamed; nothing is copied or changed. They
#           have no sidecars: the repetition time is taken to be TR; check it against the raw data.
#
# Not run on the real data here; tests run it on a small synthetic cohort with the old names.
#
# Usage: docs/recipes/ds000030.sh DATASET OUTPUT
set -eu
dataset=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)

MODEL=${MODEL:-neurostorm-mae-5ds}
TARGET=${TARGET:-diagnosis}
SITE=${SITE:-ScannerSerialNumber}
FOLDS=${FOLDS:-5}
ATLAS=${ATLAS:-Schaefer2018:200}
TR=${TR:-2.0}              # seconds, of files with the old names
SEED=${SEED:-0}
DEVICE=${DEVICE:-auto}

rename() {  # Link old names of derivatives to today's.
    for bold in "$dataset"/derivatives/fmriprep/sub-*/func/*_task-rest_bold_space-*_preproc.nii.gz
    do
        [ -e "$bold" ] || continue
        func=$(dirname "$bold")
        subject=$(basename "$(dirname "$func")")
        old=${bold%_preproc.nii.gz}                  # .../sub-X_task-rest_bold_space-Y
        space=${old##*_bold_space-}
        run=${old%_bold_space-*}
        new=$output/renamed/$subject/func/$(basename "$run")
        mkdir -p "$output/renamed/$subject/func"
        ln -sf "$bold" "${new}_space-${space}_desc-preproc_bold.nii.gz"
        ln -sf "${old}_brainmask.nii.gz" "${new}_space-${space}_desc-brain_mask.nii.gz"
        ln -sf "${run}_bold_confounds.tsv" "${new}_desc-confounds_timeseries.tsv"
    done
    [ -d "$output/renamed" ] || return 0
    printf '{"RepetitionTime": %s, "TaskName": "rest"}\n' "$TR" >"$output/renamed/task-rest_bold.json"
    printf '{"Name": "ds000030, renamed", "BIDSVersion": "1.10.1", "DatasetType": "derivative", %s}\n' \
        '"GeneratedBy": [{"Name": "fMRIPrep"}]' >"$output/renamed/dataset_description.json"
}

rename
if [ -d "$output/renamed" ]; then
    set -- -d fmriprep="$output/renamed"
else
    set --
fi

neurostorm "$dataset" "$output" finetune "$@" --task-id rest --model "$MODEL" --target "$TARGET" \
    --site-column "$SITE" --balance-classes --n-folds "$FOLDS" --atlas "$ATLAS" \
    --random-seed "$SEED" --device "$DEVICE"
