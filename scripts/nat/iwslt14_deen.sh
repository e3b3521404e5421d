#!/usr/bin/env bash
# IWSLT14 German → English, from nothing to a BLEU with its signature. --help lists the options, --dry-run shows every command.
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/reproduce.py" iwslt14_deen "$@"
