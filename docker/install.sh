#!/bin/sh
# Run in a build stage: install the package itself, then take away what no command needs.
set -eu
venv=/opt/neurostorm/venv
"$venv/bin/pip" install --no-cache-dir --no-deps --no-build-isolation --no-index /src
"$venv/bin/pip" check
# setup.py goes on where the kernels do not compile; an image does not.
"$venv/bin/python" -I -c 'from neurostorm_bids.kernels import library; library.require_library()'
"$venv/bin/pip" uninstall --quiet --yes pip
cd "$venv"/lib/python3*/site-packages
find . -name tests -type d -prune -exec rm -rf {} +
rm -rf torch/test torch/include torch/bin/protoc* torch/bin/test_* torch/bin/*Test pyarrow/include pyarrow/src \
    plotly/labextension "$venv"/share/jupyter
# Not all of it: a file whose mode is set is a file copied into this layer.
find /opt/neurostorm ! -type l \( ! -perm -a=r -o -perm /a=x ! -perm -a=x \) -exec chmod a+rX {} +
