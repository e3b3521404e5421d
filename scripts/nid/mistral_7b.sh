#!/usr/bin/env bash
# Mistral-7B-v0.1, fine-tuned on a teacher's completions: from documents to scores. --help lists the options, --dry-run shows every command.
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/reproduce.py" mistral_7b "$@"
