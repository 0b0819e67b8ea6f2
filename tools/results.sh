#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The paper's evaluation from the shipped weights to docs/results: traces, sweeps, report. `make results` calls it.
#
#   tools/results.sh DATA            DATA is the folder of the image set with val.tar.gz and train-4.tar.gz
#
# Environment: RUNS, folder of traces and sweeps (runs); OUTPUT, folder of the report (docs/results); PICTURES,
# calibration pictures (5000); LIMIT, only the first so many pictures of each split (0: all).
#
# May be broken off at any time: traces go on where they were, and a sweep that is newer than the trace, its own
# configuration and the code stays. It takes some four hours of one core, on two cores two.
set -euo pipefail
data=${1:-}
for file in val.tar.gz train-4.tar.gz; do
    if [[ ! -r $data/$file ]]; then
        echo "results: no ${data:-DATA}/$file: make results DATA=FOLDER, the folder of the image set" >&2
        exit 2
    fi
done
data=$(cd "$data" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${RUNS:-runs} output=${OUTPUT:-docs/results} pictures=${PICTURES:-5000} limit=${LIMIT:-0}
fleet=.venv/bin/fleet
trace=$runs/trace
sweeps=$runs/sweep

record() {
    "$fleet" trace models/backyard "$data/val.tar.gz" --calibration "$data/train-4.tar.gz" \
        --calibration-pictures "$pictures" --limit "$limit" --output "$trace" "$@"
}

mkdir -p "$sweeps"
record --payload 244 --rivals models/baselines
record --payload 244 --payload 20 --picture-only --sets 500

for config in config/sweeps/*.yaml; do
    name=$(basename "$config" .yaml)
    file=$sweeps/$name.json
    if [[ -s $file && -z $(find "$config" "$trace" fleet -type f -newer "$file" ! -name '*.pyc' ! -name 'index.json*' -print -quit) ]]; then
        continue
    fi
    "$fleet" sweep "$trace" "$config" --output "$file"
done

study=()  # its trainings take hours more: docs/evaluation.md, section 5
[[ -s benchmarks/exits.json ]] && study=(--study benchmarks/exits.json)
# Of a link that stands in several files the first one's numbers count: the paper's own sweep.
mapfile -t tables < <(find "$sweeps" -name '*.json' -not -name losses.json -not -name paper.json | sort)
"$fleet" report "$sweeps/paper.json" "${tables[@]}" --losses "$sweeps/losses.json" --plan models/baselines/plan.json \
    --model models/backyard --ours fleet-picture --ours fleet-picture-race --ours fleet-picture-thrifty \
    "${study[@]}" --output "$output"
