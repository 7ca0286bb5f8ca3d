# The other scripts source this file.

# environment FOLDER ARGUMENT...: make or update a virtual environment with the CPU build of PyTorch, and run
# `pip install ARGUMENT...` in it.
environment() {
    local folder=$1
    shift
    "$folder/bin/python" -c "" 2>/dev/null || "${PYTHON:-python3}" -m venv "$folder"
    # without retries: if PyTorch's own index cannot be reached, pip takes the build of PyPI at once
    "$folder/bin/pip" install -q --retries 0 torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
    "$folder/bin/pip" install -q "$@"
}
