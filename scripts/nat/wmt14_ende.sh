#!/usr/bin/env bash
# WMT14 English → German, from nothing to a BLEU with its signature. --help lists the options, --dry-run shows every command.
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/reproduce.py" wmt14_ende "$@"
