# The other scripts source this file.

# environment FOLDER ARGUMENT...: make or update a virtual environment with the CPU build of PyTorch, and run
# `pip install ARGUMENT...` in it. An editable install follows the checkout, so it is repeated only if something else is
# to be installed.
environment() {
    local folder=$1
    shift
    if ! "$folder/bin/python" -c "" 2>/dev/null; then
        "${PYTHON:-python3}" -m venv "$folder"
    elif [ "$1" = -e ] && [ "$(cat "$folder/installed" 2>/dev/null)" = "$(asked "$@")" ]; then
        return
    fi
    # without retries: if PyTorch's own index cannot be reached, pip takes the build of PyPI at once
    "$folder/bin/pip" install -q --retries 0 torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
    "$folder/bin/pip" install -q "$@"
    asked "$@" >"$folder/installed"
}

# asked ARGUMENT...: what an environment is to hold
asked() { echo "$PWD $*" && cksum <pyproject.toml; }
