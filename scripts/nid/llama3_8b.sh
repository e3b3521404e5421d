#!/usr/bin/env bash
# LLaMA-3-8B, fine-tuned on a teacher's completions: from documents to scores. --help lists the options, --dry-run shows every command.
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/reproduce.py" llama3_8b "$@"
