#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: 50-maas-01-commissioning
# title: Inventory
# description: Takes the inventory of the machine, from which its model is made.
# script_type: commissioning
# hardware_type: node
# parallel: disabled
# timeout: 00:01:00
# --- End MAAS 1.0 script metadata ---
set -eu
"$STEELYARD_AGENT" inventory resources
