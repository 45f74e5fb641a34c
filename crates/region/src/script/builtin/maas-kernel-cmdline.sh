#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: maas-kernel-cmdline
# title: Kernel command line
# description: Keeps the options of the running kernel; they name the interface that the machine booted from.
# script_type: commissioning
# hardware_type: node
# parallel: any
# timeout: 00:00:10
# --- End MAAS 1.0 script metadata ---
set -eu
"$STEELYARD_AGENT" inventory kernel-cmdline
