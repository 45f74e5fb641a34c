#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: maas-list-modaliases
# title: Modaliases
# description: Lists the aliases by which drivers find the hardware.
# script_type: commissioning
# hardware_type: node
# parallel: any
# timeout: 00:00:10
# --- End MAAS 1.0 script metadata ---
set -eu
"$STEELYARD_AGENT" inventory modaliases
