#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: maas-serial-ports
# title: Serial ports
# description: Lists the serial ports that have hardware behind them.
# script_type: commissioning
# hardware_type: node
# parallel: any
# timeout: 00:00:10
# --- End MAAS 1.0 script metadata ---
set -eu
"$STEELYARD_AGENT" inventory serial-ports
