#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: 20-maas-03-machine-resources
# title: Machine resources
# description: Writes what is in the machine to the file that later scripts read.
# script_type: commissioning
# hardware_type: node
# parallel: disabled
# timeout: 00:01:00
# --- End MAAS 1.0 script metadata ---
set -eu
"$STEELYARD_AGENT" inventory resources > "$MAAS_RESOURCES_FILE"
