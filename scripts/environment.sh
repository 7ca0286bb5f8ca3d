# Sourced by the scripts beside it.

# environment FOLDER ARGUMENT...: a virtual environment with the CPU build of PyTorch and what `pip install ARGUMENT...`
# installs. An environment that exists is brought up to date.
environment() {
    local folder=$1
    shift
    "${PYTHON:-python3}" -m venv "$folder"
    # without retries: where PyTorch's own index cannot be reached, PyPI's build is taken at once
    "$folder/bin/pip" install -q --retries 0 torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
    "$folder/bin/pip" install -q "$@"
}
