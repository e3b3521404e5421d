#!/usr/bin/env bash
# LLaMA-2-7B, fine-tuned on a teacher's completions: from documents to scores. --help lists the options, --dry-run shows every command.
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/reproduce.py" llama2_7b "$@"
