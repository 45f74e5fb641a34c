#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: maas-lshw
# title: Hardware list
# description: Describes the hardware as XML, for tags and details.
# script_type: commissioning
# hardware_type: node
# parallel: any
# timeout: 00:05:00
# --- End MAAS 1.0 script metadata ---
set -eu
"$STEELYARD_AGENT" inventory lshw
