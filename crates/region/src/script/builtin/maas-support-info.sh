#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: maas-support-info
# title: Support information
# description: Collects what support asks for first.
# script_type: commissioning
# hardware_type: node
# parallel: any
# timeout: 00:05:00
# --- End MAAS 1.0 script metadata ---
set -eu
"$STEELYARD_AGENT" inventory support-info
